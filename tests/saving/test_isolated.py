"""What a process may do in which a stranger's file is tried."""

import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from saving.examples import sequential

from toolkit import load, save
from toolkit.saving import isolated

PROBE = """
import ctypes, json, os, pathlib, resource, socket, tempfile
import keras

def facts():
    libc = ctypes.CDLL(None)
    try:
        socket.create_connection((PORT[0], PORT[1]), timeout=2).close()
        network = True
    except OSError:
        network = False
    return {
        "folder": os.getcwd(), "files": os.listdir(), "home": os.path.expanduser("~"),
        "temporary": tempfile.gettempdir(), "secret": os.environ.get("TOOLKIT_SECRET"), "network": network,
        "no new rights": libc.prctl(39, 0, 0, 0, 0), "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "data": resource.getrlimit(resource.RLIMIT_DATA)[0],
        "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0],
    }

@keras.saving.register_keras_serializable(package="isolated_probe")
class Probe(keras.layers.Layer):
    def call(self, x):
        return x

    @classmethod
    def from_config(cls, config):
        if os.getpid() == PID:
            return cls(**config)
        raise ValueError("FACTS" + json.dumps(facts()))
"""


@pytest.fixture
def model(tmp_path):
    model = sequential(layers.Dense(4), layers.Dense(1))
    model.compile("adam", "mse")
    return save(model, tmp_path / "model.keras")


def test_an_isolated_load_gives_the_model(model):
    loaded, plain = load(model, isolated=True), load(model)
    for one, other in zip(loaded.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    loaded.fit(np.ones((2, 3)), np.ones(2), verbose=0)


def test_one_process_serves_many_files_and_a_dead_one_is_replaced(model):
    load(model, isolated=True)
    (first,) = isolated._servers
    load(model, isolated=True)
    assert isolated._servers == [first]
    first.kill()
    first.wait()
    load(model, isolated=True)
    (second,) = isolated._servers
    assert second is not first
    os.kill(second.pid, 9)  # and a load follows before that is seen
    load(model, isolated=True)
    assert isolated._servers != [second]


def test_a_process_that_tries_a_file_has_nothing_of_its_own_and_no_network(tmp_path, monkeypatch):
    import socket
    import sys

    with socket.create_server(("127.0.0.1", 0)) as server:
        source = PROBE.replace("PID", str(os.getpid())).replace("PORT", repr(server.getsockname()))
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules/isolated_probe.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path / "modules")
        monkeypatch.setenv("TOOLKIT_SECRET", "secret")
        import isolated_probe

        path = save(sequential(isolated_probe.Probe(), layers.Dense(1)), tmp_path / "model.keras")
        with pytest.raises(ValueError, match="FACTS") as caught:
            load(path, isolated=True, seconds=50, megabytes=700)
        told = str(caught.value).split("FACTS")[1]
        facts = json.JSONDecoder().raw_decode(told)[0]
        assert facts["folder"] == facts["home"] == facts["temporary"] != str(tmp_path)
        assert all(name.startswith("toolkit-load-") for name in facts["files"])
        assert not Path(facts["folder"]).exists()
        assert facts["secret"] is None
        assert facts["core"] == 0
        assert facts["no new rights"] == 1
        assert 700e6 < facts["data"] < 3e9
        assert facts["cpu"] == 50 * os.cpu_count() + 1
        if os.geteuid() == 0:
            assert not facts["network"]
        assert load(path).count_params() == 4
    del sys.modules["isolated_probe"]
    keras.saving.get_custom_objects().pop("isolated_probe>Probe")


def test_limits_are_said_before_any_work(model):
    wrong = (
        {"seconds": 0},
        {"seconds": float("nan")},
        {"megabytes": -1},
        {"seconds": "5"},
        {"seconds": 1e10},
    )
    for settings in wrong:
        (name,) = settings
        with pytest.raises(ValueError, match=f"`{name}` must be a positive number, at most .*Received: "):
            load(model, isolated=True, **settings)
    with pytest.raises(ValueError, match="`isolated` is for files that are not trusted"):
        load(model, isolated=True, trusted=True)


def test_a_limit_that_is_too_low_is_named(model):
    with pytest.raises(ValueError, match=r"is refused: it did not load and predict within 0.05 seconds"):
        load(model, isolated=True, seconds=0.05)
    with pytest.raises(ValueError, match=r"is refused: it .*memory: 1 MB were allowed"):
        load(model, isolated=True, megabytes=1)


def test_what_is_loaded_is_what_was_tried(model, tmp_path, monkeypatch):
    other = save(sequential(layers.Dense(7)), tmp_path / "other.keras").read_bytes()
    try_out = isolated.try_out

    def try_then_swap(path, *limits):
        digest = try_out(path, *limits)
        path.write_bytes(other)
        return digest

    monkeypatch.setattr("toolkit.saving.api.try_out", try_then_swap)
    with pytest.raises(ValueError, match="it is another file"):
        load(model, isolated=True)
