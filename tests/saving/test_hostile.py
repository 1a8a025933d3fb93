"""No file that was made to harm is loaded, and none harms."""

import contextlib
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter

import hypothesis
import keras
import numpy as np
import pytest
from conftest import ROOT, one_in
from hypothesis import strategies as st
from keras import layers
from saving.hostile import HEAVY, HOSTILE, ORDER, outcome, parts_of, write_zip
from tables import record_fault

from toolkit import _keras, load, save
from toolkit.saving import reading
from toolkit.saving.reading import guards_bite


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A file that loads, and what its first weights are."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu"), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((4, 3)), np.ones(4), verbose=0)
    path = save(model, tmp_path_factory.mktemp("good") / "model.keras")
    return path, [np.array(weight) for weight in model.weights]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_by_its_own_reason(kind, good, tmp_path, monkeypatch):
    make, reason = HOSTILE[kind]
    path = tmp_path / "hostile.keras"
    make(path, good[0])
    monkeypatch.chdir(tmp_path)
    try:
        with pytest.raises(ValueError, match=f"(?s){re.escape(str(path))} is refused: .*({reason})"):
            load(path)
    except BaseException:
        record_fault("hostile files, by kind", 1, 1)
        raise
    record_fault("hostile files, by kind", 1, 0)
    assert [each.name for each in tmp_path.iterdir()] == ["hostile.keras"]


@pytest.mark.parametrize("kind", one_in(3, HEAVY))
def test_a_file_that_takes_all_time_or_memory_is_refused_by_an_isolated_load(kind, good, tmp_path):
    path, started = tmp_path / "hostile.keras", time.monotonic()
    HEAVY[kind](path, good[0])
    try:
        load(good[0], isolated=True)  # the process that waits has started
        started = time.monotonic()
        with pytest.raises(ValueError, match="is refused: ") as caught:
            load(path, isolated=True, seconds=3, megabytes=500)
        limits = "within 3 seconds|needs too much memory: 500 MB|ended its process|time of 3 seconds"
        assert re.search(limits, str(caught.value)), str(caught.value)[:500]
        assert time.monotonic() - started < 30
    except BaseException:
        record_fault("files that take all time or memory, by kind", 1, 1)
        raise
    record_fault("files that take all time or memory, by kind", 1, 0)
    assert [each.name for each in tmp_path.iterdir()] == ["hostile.keras"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_an_isolated_load_refuses_what_a_load_refuses(kind, good, tmp_path):
    make, reason = HOSTILE[kind]
    path = tmp_path / "hostile.keras"
    make(path, good[0])
    try:
        with pytest.raises(ValueError, match=f"(?s)is refused: .*({reason})"):
            load(path, isolated=True)
    except BaseException:
        record_fault("hostile files under an isolated load, by kind", 1, 1)
        raise
    record_fault("hostile files under an isolated load, by kind", 1, 0)


LOADER = """
import os, resource, sys
import toolkit
from toolkit.saving import isolated
isolated._set_limits({"seconds": 1e6, "bytes": 2 * 10**9, "size": 10**7})
for path in sys.stdin:
    used = int(sum(os.times()[:2]))
    resource.setrlimit(resource.RLIMIT_CPU, (used + 5, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    try:
        toolkit.load(path.strip())
        print("loaded", flush=True)
    except ValueError:
        print("refused", flush=True)
"""


class Loader:
    """Loads files in one process after the other: the next begins where one has hung or crashed."""

    process = None

    def outcome(self, path):
        """Load a file: "loaded", "refused", "hung" (5 seconds of the processor, or minutes) or "crashed"."""
        if self.process is None:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            command = [sys.executable, "-c", LOADER]
            self.process = subprocess.Popen(command, env=environment, text=True, **pipes)
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        in_time = select.select([self.process.stdout], [], [], 300)[0]
        answer = self.process.stdout.readline().strip() if in_time else "hung"
        if answer in ("", "hung"):
            answer = "hung" if self.close() in (-signal.SIGXCPU, -signal.SIGKILL) else "crashed"
        return answer

    def close(self):
        """End the process, unless it has ended, and return its status."""
        process, self.process = self.process, None
        process.stdin.close()
        try:
            return process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            process.stdout.close()


def mutated(content, marked, random_state):
    """Change bytes of an HDF5 file, most of them where the library keeps its own numbers."""
    content = bytearray(content)
    for _ in range(random_state.randint(1, 4)):
        position = random_state.choice(marked) + random_state.randrange(64)
        position = position if random_state.random() < 0.7 else random_state.randrange(len(content))
        value = random_state.choice([0, 1, 8, 127, 255, random_state.randrange(256)])
        content[position % len(content)] = value
    return bytes(content)


@pytest.mark.parametrize(
    "count", [60, pytest.param(300, marks=pytest.mark.slow), pytest.param(5_000, marks=pytest.mark.soak)]
)
def test_no_change_of_the_hdf5_part_hangs_or_crashes(count, good, tmp_path):
    """With mended CRCs: an isolated load ends also where another one hangs or crashes."""
    members, loader, path = parts_of(good[0]), Loader(), tmp_path / "mutated.keras"
    weights, random_state = members["model.weights.h5"], random.Random(count)
    marked = [match.start() for match in re.finditer(b"HEAP|TREE|SNOD|GCOL|\x89HDF", weights)]
    outcomes, hung = Counter(), 0
    for _ in range(count):
        members["model.weights.h5"] = mutated(weights, marked, random_state)
        write_zip(path, [(name, members[name]) for name in ORDER])
        outcomes[outcome := loader.outcome(path)] += 1
        if outcome in ("hung", "crashed"):
            started = time.monotonic()
            with contextlib.suppress(ValueError):
                load(path, isolated=True, seconds=3, megabytes=500)
            hung += time.monotonic() - started > 60
    loader.close()
    record_fault("changes of the HDF5 part, CRC mended", count, hung)
    for outcome in ("hung", "crashed"):
        record_fault(f"of these, that {outcome} a load that is not isolated", outcomes[outcome], 0)
    assert hung == 0
    assert (
        min(outcomes["refused"], outcomes["loaded"]) > count / 20
    )  # the changes are neither too few nor many


def test_unsafe_mode_that_was_switched_on_elsewhere_is_noticed(good):
    keras.config.enable_unsafe_deserialization()
    try:
        with pytest.raises(ValueError, match="enable_unsafe_deserialization"):
            load(good[0])
        assert load(good[0], trusted=True).count_params() == 21
    finally:
        _keras.global_state.set_global_attribute("safe_mode_saving", None)


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("safe_mode", lambda: None),
        ("safe_mode_scope", lambda on: contextlib.nullcontext()),
        ("declared_into", lambda variables: contextlib.nullcontext()),
    ],
)
def test_a_guard_of_keras_that_does_not_bite_is_noticed(name, without, good, monkeypatch):
    guards_bite.cache_clear()
    monkeypatch.setattr(_keras, name, without)
    with pytest.raises(RuntimeError, match="does not keep code out of files, or does not tell"):
        load(good[0])
    assert guards_bite.cache_info().currsize == 0
    monkeypatch.undo()
    load(good[0])
    assert guards_bite.cache_info().currsize == 1


def test_a_trusted_file_may_hold_code_but_must_be_whole(good, tmp_path):
    model = keras.Sequential([keras.Input((2,)), layers.Lambda(lambda x: 2 * x)])
    path = tmp_path / "code.keras"
    model.save(path)
    with pytest.raises(ValueError, match="is a Lambda, which holds code"):
        load(path)
    np.testing.assert_array_equal(load(path, trusted=True)(np.ones((1, 2))), [[2, 2]])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut off"):
        load(path, trusted=True)


def test_other_formats_are_refused_with_the_way_out(tmp_path):
    (tmp_path / "old.h5").write_bytes(b"\x89HDF")
    (tmp_path / "saved").mkdir()
    (tmp_path / "model.pb").write_bytes(b"")
    for name in ("old.h5", "saved"):
        with pytest.raises(
            ValueError, match=r"Load it with the Keras version that wrote it.*save it as \.keras"
        ):
            load(tmp_path / name)
    with pytest.raises(ValueError, match=r"must end in \.keras"):
        load(tmp_path / "model.pb")
    with pytest.raises(FileNotFoundError, match="is no file"):
        load(tmp_path / "none.keras")


def test_what_is_loaded_is_what_was_checked(good, tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    path.write_bytes(good[0].read_bytes())
    check = reading.check

    def check_then_swap(*args):
        checked = check(*args)
        path.write_bytes(b"swapped")
        return checked

    monkeypatch.setattr(reading, "check", check_then_swap)
    for weight, other in zip(good[1], load(path).weights, strict=True):
        np.testing.assert_array_equal(weight, other)


@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(st.binary(max_size=300))
def test_no_bytes_load_as_a_model(tmp_path, content):
    path = tmp_path / "any.keras"
    for each in (content, b"PK\3\4" + content, content + b"PK\5\6" + bytes(18)):
        path.write_bytes(each)
        with pytest.raises(ValueError, match="is refused"):
            load(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["class_name", "config", "module", "registered_name", "layers", "name", "build_config", "a"]
            ),
            inner
            | st.sampled_from(
                ["Dense", "Sequential", "keras", "keras.layers", "Functional", "function", "__tensor__"]
            ),
            max_size=5,
        )
    ),
    max_leaves=12,
)


@hypothesis.settings(max_examples=40, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(value=json_values, place=st.sampled_from(["whole", "layer", "setting", "compiled"]))
def test_no_config_crashes(good, tmp_path, value, place):
    """Each is refused, or is a model with equal weights."""
    members = parts_of(good[0])
    config = json.loads(members["config.json"])
    if place == "layer":
        config["config"]["layers"][1] = value
    elif place == "setting":
        config["config"]["layers"][1]["config"]["kernel_regularizer"] = value
    elif place == "compiled":
        config["compile_config"]["metrics"] = value
    path = tmp_path / "any.keras"
    text = json.dumps(value if place == "whole" else config).encode()
    write_zip(path, [(name, {**members, "config.json": text}[name]) for name in ORDER])
    assert outcome(path, good[1]) in ("refused", "equal")
