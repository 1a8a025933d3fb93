"""No test of this folder sees the machine's own data or its network."""

import hashlib
import socket
import sys

import pytest
from data.small import SMALL, fake_keras, write

from toolkit.data import files


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    """No test sees this machine's own data, its network, or what another test has remembered."""

    def no_network(*_, **__):
        raise Exception("URL fetch failure") from None

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setattr(files, "_unreachable", "")
    monkeypatch.setitem(sys.modules, "keras", fake_keras(no_network))
    before = socket.getdefaulttimeout()
    yield
    after = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before)
    assert after == before  # what a download sets is put back


@pytest.fixture
def small(monkeypatch):
    """The module takes the small files for Keras's own."""
    hashes = {file: hashlib.sha256(content).hexdigest() for file, content in SMALL.items()}
    monkeypatch.setattr(files, "SHA256", hashes)
    return SMALL


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("small"))
