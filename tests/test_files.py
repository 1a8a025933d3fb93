"""What `_files` promises of reading; whole writes are held to their promise by the faults of saving."""

import os
import socket

import pytest

from toolkit import _files


@pytest.mark.skipif(os.name == "nt", reason="no pipes among the files")
def test_only_regular_files_are_read_and_no_link_is_followed(tmp_path):
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    os.mkfifo(tmp_path / "pipe")
    for name, message in [
        ("link", "link is a link"),
        ("pipe", "pipe is no regular file"),
        ("none", "No such file"),
    ]:
        with pytest.raises(OSError, match=message):
            _files.read_own(tmp_path / name)
    with pytest.raises(OSError, match="no regular file"):
        _files.read_own(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="no sockets among the files")
def test_a_socket_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as each:
        each.bind("socket")
        with pytest.raises(OSError, match=r"No such device|not supported"):
            _files.read_own(tmp_path / "socket")


def test_nothing_is_read_of_a_file_that_is_too_large(tmp_path):
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 4 << 40)  # which takes no place on the disk
    with pytest.raises(PermissionError, match="large has 4398046511104 bytes: at most 100000000 are read"):
        _files.read_own(path)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners")
def test_a_file_of_another_user_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "theirs"
    path.write_bytes(b"theirs")
    if os.getuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(PermissionError, match="theirs belongs to another user, number"):
        _files.read_own(path)
