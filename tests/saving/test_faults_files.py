"""What can happen to a model file, and what must not come of it."""

import contextlib
import functools
import os
import random
import resource
import signal
import subprocess
import sys
import time

import hypothesis
import keras
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import strategies as st
from keras import layers
from saving.hostile import outcome
from tables import record_fault

import toolkit
from toolkit import load, save


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A file that loads, and what its first weights are."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu"), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((4, 3)), np.ones(4), verbose=0)
    path = save(model, tmp_path_factory.mktemp("good") / "model.keras")
    return path, [np.array(weight) for weight in model.weights]


# Killed while it saves


LOOP = """
import os, sys
import numpy as np, keras, toolkit
from toolkit.saving import api
from toolkit.saving.reading import guards_bite
folder, compare = sys.argv[1], api.compare
def compare_and_tell(*models):
    compare(*models)
    print(os.getpid(), -1, flush=True)  # what is left is to put the file in its place
api.compare = compare_and_tell
for line in sys.stdin:  # one process for each line, which starts where the imports are done
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        print("dead", flush=True)
        continue
    model = keras.Sequential([keras.Input((200,)), keras.layers.Dense(200), keras.layers.Dense(200)])
    model.compile("adam", "mse")
    for number in range(1, 10_000):
        model.set_weights([np.full(weight.shape, number, "float32") for weight in model.get_weights()])
        print(os.getpid(), number, flush=True)
        toolkit.save(model, folder + "/model.keras")
"""


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_any_moment_of_a_save_a_whole_file_stays(kills, tmp_path):
    random_state = random.Random(kills)
    path, lost = tmp_path / "model.keras", 0
    with subprocess.Popen(
        [sys.executable, "-c", LOOP, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        seconds = 1.0
        for kill in range(kills):
            process.stdin.write("go\n")
            process.stdin.flush()
            started, number, compared = time.perf_counter(), 0, 0
            while number < 2 or (
                kill % 2 and compared < 2
            ):  # the first save is complete: now there is a file
                child, told = map(int, process.stdout.readline().split())
                number, compared = (number, compared + 1) if told < 0 else (told, compared)
            seconds = 0.5 * seconds + 0.5 * (time.perf_counter() - started)
            time.sleep(random_state.uniform(0, 0.03 if kill % 2 else 1.5 * seconds))
            os.kill(child, signal.SIGKILL)
            for line in process.stdout:
                if line == "dead\n":
                    break
                number = max(number, int(line.split()[1]))
            try:
                values = {float(value) for weight in load(path).get_weights() for value in np.unique(weight)}
                beside = tmp_path / "model.keras.sha256"
                if beside.exists():
                    load(path, sha256=beside.read_text().split()[0])
                lost += values not in ({number}, {number - 1})
            except ValueError:
                lost += 1
        process.stdin.close()
    record_fault("kill -9 at a random moment of a save", kills, lost)
    assert lost == 0
    save(load(path), path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.keras", "model.keras.sha256"]


# A full disk


@contextlib.contextmanager
def largest_file(size):
    """Let no file of this process grow beyond `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_earlier_file(good, tmp_path):
    model = load(good[0])
    path = save(model, tmp_path / "model.keras")
    before, harmed = path.read_bytes(), 0
    sizes = np.linspace(0, len(before) - 1, 12).astype(int).tolist()
    for size in sizes:
        with largest_file(size), pytest.raises((OSError, ValueError)):
            save(model, path)
        names = sorted(each.name for each in tmp_path.iterdir())
        harmed += path.read_bytes() != before or names != ["model.keras", "model.keras.sha256"]
    record_fault("disk full at a random byte of a save", len(sizes), harmed)
    assert harmed == 0
    assert load(path).count_params() == model.count_params()


def test_a_small_disk_leaves_the_earlier_file(good, tmp_path):
    size = good[0].stat().st_size
    (tmp_path / "disk").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size * 7 // 2 // 4096 * 4096}", "tmpfs", tmp_path / "disk"],
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small disk")
    try:
        model = load(good[0])
        path = save(model, tmp_path / "disk/model.keras")
        before, harmed, tried = path.read_bytes(), 0, 0
        while True:  # fill what is left, little by little
            tried += 1
            (tmp_path / f"disk/filler{tried}").write_bytes(bytes(size // 8))
            try:
                save(model, path)
                before = path.read_bytes()
            except OSError as error:
                harmed += "No space left on device" not in str(error)
                harmed += path.read_bytes() != before
                break
        record_fault("disk full (a small tmpfs)", tried, harmed)
        assert harmed == 0
        assert load(path).count_params() == model.count_params()
    finally:
        subprocess.run(["umount", tmp_path / "disk"], check=True)


# Cut and flipped


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_a_file_cut_at_any_byte_is_refused(count, good, tmp_path):
    content = good[0].read_bytes()
    path = tmp_path / "cut.keras"
    outcomes = []
    for end in random.Random(count).sample(range(len(content)), count):
        path.write_bytes(content[:end])
        outcomes.append(outcome(path, good[1]))
    record_fault("file cut at a random byte", count, count - outcomes.count("refused"))
    assert set(outcomes) == {"refused"}


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_refused_or_does_no_harm(count, good, tmp_path):
    content = good[0].read_bytes()
    path = tmp_path / "flipped.keras"
    random_state = random.Random(count)
    wrong = 0
    for _ in range(count):
        flipped = bytearray(content)
        flipped[random_state.randrange(len(content))] ^= 1 << random_state.randrange(8)
        path.write_bytes(flipped)
        wrong += outcome(path, good[1]) == "wrong"
    record_fault("random bit flipped", count, wrong)
    assert wrong == 0


@pytest.mark.slow
def test_each_byte_around_the_members_is_a_date_or_seen_to(good, tmp_path):
    """The CRC guards the members, and not their headers and their list."""
    content = good[0].read_bytes()
    path = tmp_path / "flipped.keras"
    positions = [*range(30), *range(content.index(b"PK\1\2"), len(content))]
    wrong = 0
    for position in positions:
        flipped = bytearray(content)
        flipped[position] ^= 0xFF
        path.write_bytes(flipped)
        wrong += outcome(path, good[1]) == "wrong"
    record_fault("each byte of the frame flipped", len(positions), wrong)
    assert wrong == 0


# What the helpers take


anything = st.one_of(
    *(st.none(), st.booleans(), st.integers(-5, 40), st.floats(), st.text(max_size=4), st.binary(max_size=4)),
    st.lists(st.integers(-3, 9) | st.floats() | st.none() | st.text(max_size=2), max_size=5),
    st.lists(st.lists(st.integers(-3, 9), max_size=3), max_size=4),
    st.sampled_from(
        [np.array(1.0), np.zeros((0, 3)), np.array(["a"]), np.array([[1, 2], [3, 4]]), object(), {}, {"a": 1}]
    ),
)


@functools.cache
def compiled():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


HELPERS = {
    "fit": lambda a, b, c: toolkit.fit(compiled(), a, b, sample_weight=c, epochs=0, verbose=0),
    "fit's validation": lambda a, b, c: toolkit.fit(
        compiled(), np.ones((4, 2)), np.ones(4), validation_data=(a, b), callbacks=c, epochs=0, verbose=0
    ),
    "fit's settings": lambda a, b, c: toolkit.fit(
        compiled(), np.ones((4, 2)), np.ones(4), batch_size=a, class_weight=b, epochs=c, verbose=0
    ),
    "fit_many": lambda a, b, c: toolkit.fit_many(
        [compiled()], np.ones((4, 2)), np.ones(4), [(a, b)], callbacks=c, epochs=0, verbose=0
    ),
    "fit_many's models": lambda a, b, c: toolkit.fit_many(
        a, np.ones((4, 2)), np.ones(4), b, names=c, epochs=0
    ),
    "cross_validate": lambda a, b, c: toolkit.cross_validate(
        lambda rows: compiled(), np.ones((4, 2)), np.ones(4), folds=a, repeats=b, seed=c, epochs=0, verbose=0
    ),
    "kfold": lambda a, b, c: toolkit.kfold(a, b, seed=c),
    "kfold of labels": lambda a, b, c: toolkit.kfold(a, b, stratify=c),
    "multi_hot": lambda a, b, c: toolkit.multi_hot(a, b, sparse=bool(c)),
    "decode": lambda a, b, c: toolkit.decode(a, {"a": 1} if c else b),
    "encode": lambda a, b, c: toolkit.encode(a, b, num_words=c),
    "Standardizer": lambda a, b, c: toolkit.Standardizer.fit(a)(b),
    "MinMaxNormalizer": lambda a, b, c: toolkit.MinMaxNormalizer.fit(a)(b),
    "head": lambda a, b, c: toolkit.head(a),
    "plot_history": lambda a, b, c: toolkit.plot_history(a, "loss" if c else b),
    "plot_folds": lambda a, b, c: toolkit.plot_folds(a, "loss" if c else b),
    "Data": lambda a, b, c: toolkit.Data(a, b),
    "boston": lambda a, b, c: toolkit.Data("sample").boston_housing(test_split=a, seed=b),
    "Checkpoint": lambda a, b, c: toolkit.Checkpoint("x.keras", a, b),
    "save": lambda a, b, c: save(a, "x.keras"),
    "load": lambda a, b, c: load("none.keras" if b else str(a), sha256=c),
}


@pytest.mark.parametrize("name", HELPERS)
def test_a_helper_takes_what_it_is_given_or_says_why_not(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    @hypothesis.settings(max_examples=80)
    @hypothesis.given(anything, anything, anything)
    def check(a, b, c):
        with contextlib.suppress(ValueError, TypeError, OSError):
            HELPERS[name](a, b, c)

    check()
