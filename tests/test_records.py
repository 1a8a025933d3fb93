"""What writing record files must leave alone; the rows themselves are held with the recipe streaming."""

import random
import subprocess
import sys

import pytest

import toolkit


def test_importing_it_changes_neither_what_tfds_sees_nor_what_it_knows():
    code = """
import tensorflow_datasets as tfds
before = tfds.core.visibility.get_availables(), set(tfds.core.registered._DATASET_REGISTRY)
import toolkit.records
assert before == (tfds.core.visibility.get_availables(), set(tfds.core.registered._DATASET_REGISTRY))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_random_numbers_to_come_are_the_same_with_files_and_without(tmp_path):
    from toolkit.records import prepare

    data = toolkit.Data("sample").boston_housing()
    for _ in range(2):
        random.seed(5)
        wanted = random.random()
        random.seed(5)
        prepare(data, tmp_path)
        assert random.random() == wanted


@pytest.mark.slow
def test_two_processes_that_want_the_same_files_write_them_once(tmp_path):
    code = f"""
import time, toolkit
from toolkit import records
written = 0
def slowly(data, x, rows=records._rows):
    global written
    for row in rows(data, x):
        written += 1
        time.sleep(0.01)
        yield row
records._rows = slowly
records.prepare(toolkit.Data("sample").boston_housing(), {str(tmp_path)!r})
print(written)
"""
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert sorted(process.communicate(timeout=200)[0] for process in started) == ["0\n", "506\n"]
