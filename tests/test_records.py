"""What writing record files must leave alone; the rows themselves are held in test_recipes_streaming.py."""

import random
import subprocess
import sys

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
