import gc
import hashlib
import http.server
import importlib
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from pathlib import Path

import keras
import pytest
from data.small import NAMES, SMALL, by_name, load, npz_bytes, ragged, sends, snapshot, write

from toolkit.data import Data, DataNotFoundError, download, files
from toolkit.data.__main__ import main


@pytest.mark.parametrize(
    "where", ["folder", "folder/datasets", "KERAS_HOME", "home", "~folder", "~KERAS_HOME"]
)
def test_each_place_is_looked_in(where, small, tmp_path, monkeypatch):
    home = tmp_path / "home"
    folder = None
    if where == "folder":
        folder = write(tmp_path / "data")
    elif where == "folder/datasets":
        write(tmp_path / "data" / "datasets")
        folder = str(tmp_path / "data")
    elif where == "KERAS_HOME":
        write(tmp_path / "keras" / "datasets")
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    elif where == "home":
        write(home / ".keras" / "datasets")
    elif where == "~folder":
        write(home / "mine")
        folder = "~/mine"
    else:
        write(home / "keras" / "datasets")
        monkeypatch.setenv("KERAS_HOME", "~/keras")
    data = Data("real", folder)
    for name in NAMES:
        assert load(name, data).source == "real"


def test_the_folder_comes_first(small, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    places = files.places(tmp_path / "data")
    assert places == [tmp_path / "data", tmp_path / "keras/datasets", tmp_path / "home/.keras/datasets"]
    (tmp_path / "data" / "datasets").mkdir(parents=True)
    assert files.places(tmp_path / "data")[:2] == [tmp_path / "data/datasets", tmp_path / "data"]


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("opened"),))


def wrong_contents(file):
    content = SMALL[file]
    other = {"imdb.npz": "reuters.npz", "imdb_word_index.json": "reuters.npz"}[file]
    return {
        "flipped": content[:50] + bytes([content[50] ^ 1]) + content[51:],
        "truncated": content[:-1],
        "empty": b"",
        "swapped": SMALL[other],
        "hostile": npz_bytes(x_train=ragged([Bomb()]), y_train=[0], x_test=ragged([Bomb()]), y_test=[0]),
    }


@pytest.mark.parametrize("file", ["imdb.npz", "imdb_word_index.json"])
@pytest.mark.parametrize("fault", ["flipped", "truncated", "empty", "swapped", "hostile"])
def test_a_wrong_file_is_named_and_left_alone_and_not_opened(file, fault, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = wrong_contents(file)[fault]
    folder = write(tmp_path / "data", {**SMALL, file: content})
    before = snapshot(folder)
    with pytest.raises(DataNotFoundError) as error:
        Data("real", folder).imdb()
    message = str(error.value)
    assert f"{folder / file} is a wrong file and was left alone" in message
    assert hashlib.sha256(content).hexdigest() in message
    assert files.SHA256[file] in message
    with pytest.warns(UserWarning, match="The embedded sample is used instead"):
        dataset = Data("auto", folder).imdb()
    assert dataset.source == "sample"
    assert file in dataset.reason
    assert dataset.word_index["the"] == 1  # rows and index come from the same source
    assert snapshot(folder) == before
    assert not Path("opened").exists()


@pytest.mark.parametrize("file", SMALL)
def test_a_wrong_file_of_any_data_set_is_named(file, small, tmp_path):
    name = next(name for name, files in files.FILES.items() if file in files)
    content = SMALL[file]
    for wrong in (
        content[:-1],
        bytes([content[0] ^ 1]) + content[1:],
        b"",
        next(iter(set(SMALL.values()) - {content})),
    ):
        folder = write(tmp_path / "data", {**SMALL, file: wrong})
        with pytest.raises(DataNotFoundError, match=f"{Path(file).name} is a wrong file and was left alone"):
            load(name, Data("real", folder))
        assert (folder / file).read_bytes() == wrong


def test_the_hostile_file_would_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb()))
    assert Path("opened").exists()


def test_a_wrong_file_does_not_end_the_search(small, tmp_path):
    folder = write(tmp_path / "data", {**SMALL, "mnist.npz": b"wrong"})
    write(tmp_path / "home/.keras/datasets")
    with pytest.warns(UserWarning, match="mnist.npz is a wrong file and was left alone"):
        assert Data("auto", folder).mnist().source == "real"


def test_a_file_that_cannot_be_read_is_named(small, tmp_path):
    (tmp_path / "data" / "mnist.npz").mkdir(parents=True)
    with pytest.raises(DataNotFoundError, match=r"mnist.npz cannot be read \("):
        Data("real", tmp_path / "data").mnist()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_named_and_not_waited_for(small, tmp_path):
    folder = write(tmp_path / "data")
    (folder / "mnist.npz").unlink()
    os.mkfifo(folder / "mnist.npz")
    with pytest.raises(DataNotFoundError, match=r"mnist.npz cannot be read \(it is no regular file\)"):
        Data("real", folder).mnist()


def test_a_file_that_changes_after_it_was_verified_does_no_harm(small, tmp_path, monkeypatch):
    folder = write(tmp_path / "data")
    check = files.difference

    def check_then_swap(file, content):
        (folder / file).write_bytes(b"swapped")
        return check(file, content)

    monkeypatch.setattr(files, "difference", check_then_swap)
    dataset = Data("real", folder).imdb()
    assert len(dataset.x_train) == 40
    assert dataset.word_index["word1"] == 1


def test_a_folder_that_can_only_be_read_is_enough(small, tmp_path):
    folder = write(tmp_path / "data")
    before = snapshot(folder)
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        for name in NAMES:
            assert load(name, Data("real", folder)).source == "real"
        assert snapshot(folder) == before
    finally:
        folder.chmod(0o755)
        (folder / "fashion-mnist").chmod(0o755)


def test_what_is_missing_is_listed_with_its_address_and_place(small, tmp_path):
    folder = write(tmp_path / "data", {"imdb_word_index.json": SMALL["imdb_word_index.json"]})
    with pytest.raises(FileNotFoundError) as error:
        Data("real", folder).imdb()
    message = str(error.value)
    url = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/imdb.npz"
    assert f"  {url}\n    as {folder / 'imdb.npz'}" in message
    assert "imdb_word_index.json" not in message  # it is there
    assert str(tmp_path / "home/.keras/datasets") in message
    assert "download failed: URL fetch failure" in message


def test_the_addresses_and_hashes_are_those_of_keras():
    for name in NAMES:
        source = Path(importlib.import_module(f"keras.src.datasets.{name}").__file__).read_text()
        for file in files.FILES[name]:
            assert Path(file).name in source
            assert files.address(file).rsplit("/", 1)[0] in source
            if file.endswith(".npz"):
                assert files.SHA256[file] in source


def test_what_is_missing_is_downloaded_verified_and_kept(small, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, "keras", sends(by_name(), calls))
    folder = tmp_path / "data"
    for name in NAMES:
        assert load(name, Data("auto", folder)).source == "real"
    assert snapshot(folder) == {str(folder / file): content for file, content in SMALL.items()}
    assert [name for name, _ in calls] == [Path(file).name for file in SMALL]
    assert all(seconds <= 10 for _, seconds in calls)
    load("imdb", Data("real", folder))
    assert len(calls) == len(SMALL)  # nothing is fetched twice


@pytest.mark.parametrize(
    ("failure", "remembered"),
    [
        (urllib.error.URLError(OSError("no route")), True),
        (TimeoutError("timed out"), True),
        (urllib.error.HTTPError("url", 404, "Not Found", None, None), False),
        (urllib.error.ContentTooShortError("retrieval incomplete", None), False),
        (OSError(28, "No space left on device"), False),
        (b"<html>please log in</html>", False),
        (SMALL["mnist.npz"][:-1], False),
    ],
    ids=lambda value: value.decode(errors="replace")[:6] if isinstance(value, bytes) else None,
)
def test_a_download_that_fails_leaves_nothing(failure, remembered, small, tmp_path, monkeypatch):
    def get_file(origin):
        if not isinstance(failure, urllib.error.URLError):
            return failure
        wrapped = Exception(f"URL fetch failure on {origin}")  # what Keras makes of it
        wrapped.__context__ = failure
        return wrapped

    calls = []
    monkeypatch.setitem(sys.modules, "keras", sends(get_file, calls))
    folder = tmp_path / "data" / "deep"
    tmp_path.joinpath("data").mkdir()
    with pytest.raises(DataNotFoundError, match="download failed"):
        Data("real", folder).mnist()
    assert list(tmp_path.joinpath("data").iterdir()) == []
    with pytest.raises(DataNotFoundError, match="download failed"):
        Data("real", folder).boston_housing()
    assert len(calls) == (1 if remembered else 2)  # nobody waits twice for a network that is not there


def test_an_interrupted_download_leaves_nothing(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", sends({"mnist.npz": KeyboardInterrupt()}))
    tmp_path.joinpath("data").mkdir()
    with pytest.raises(KeyboardInterrupt):
        Data("auto", tmp_path / "data").mnist()
    assert list(tmp_path.joinpath("data").iterdir()) == []


def test_a_download_replaces_no_file(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", sends(by_name()))
    folder = write(tmp_path / "data", {"mnist.npz": b"mine"})
    with pytest.warns(UserWarning, match="mnist.npz is a wrong file and was left alone"):
        assert Data("auto", folder).mnist().source == "real"
    assert snapshot(folder) == {str(folder / "mnist.npz"): b"mine"}


def test_a_file_system_without_links_will_do(small, tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError("not supported")

    monkeypatch.setitem(sys.modules, "keras", sends(by_name()))
    monkeypatch.setattr(Path, "hardlink_to", no_links)
    assert Data("real", tmp_path / "data").mnist().source == "real"
    assert snapshot(tmp_path / "data") == {str(tmp_path / "data" / "mnist.npz"): SMALL["mnist.npz"]}
    other = write(tmp_path / "other", {"mnist.npz": b"mine"})
    with pytest.warns(UserWarning, match="left alone"):
        assert Data("real", other).mnist().source == "real"
    assert snapshot(other) == {str(other / "mnist.npz"): b"mine"}


def test_a_download_goes_to_the_first_place_that_can_be_written_to(small, tmp_path, monkeypatch):
    make = files.tempfile.TemporaryDirectory

    def refuse(prefix, dir):  # noqa: A002
        if Path(dir) == tmp_path / "data":
            raise PermissionError("read-only")
        return make(prefix=prefix, dir=dir)

    (tmp_path / "data").mkdir()
    monkeypatch.setattr(files.tempfile, "TemporaryDirectory", refuse)
    monkeypatch.setitem(sys.modules, "keras", sends(by_name()))
    assert Data("real", tmp_path / "data").mnist().source == "real"
    assert (tmp_path / "home/.keras/datasets/mnist.npz").exists()
    monkeypatch.setattr(files.tempfile, "TemporaryDirectory", lambda **_: refuse("", tmp_path / "data"))
    with pytest.raises(DataNotFoundError, match="no folder to write to"):
        Data("real", tmp_path / "data").boston_housing()


def test_threads_load_side_by_side(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", sends(by_name()))
    folder = tmp_path / "data"
    barrier = threading.Barrier(6)
    results = []

    def work(name):
        barrier.wait()
        results.append(load(name, Data("real", folder)))

    threads = [threading.Thread(target=work, args=[name]) for name in ["imdb", "reuters", "mnist"] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    names = [*files.FILES["imdb"], *files.FILES["reuters"], "mnist.npz"]
    assert snapshot(folder) == {str(folder / file): SMALL[file] for file in names}
    assert gc.isenabled()


def test_processes_load_side_by_side(small, small_folder, tmp_path):
    """Two at once fetch the same file, slowly: each gets it, one copy stays."""
    code = f"""
import pathlib, sys, time, types
from toolkit.data import Data, files
def get_file(name, origin, cache_dir, cache_subdir):
    time.sleep(0.5)
    content = (pathlib.Path({str(small_folder)!r}) / name).read_bytes()
    with open(pathlib.Path(cache_dir, name), "wb") as file:
        for byte in range(0, len(content), 4096):
            file.write(content[byte : byte + 4096])
            time.sleep(0.005)
sys.modules["keras"] = types.SimpleNamespace(utils=types.SimpleNamespace(get_file=get_file))
files.SHA256 = {files.SHA256!r}
print(Data("real", {str(tmp_path / "data")!r}).california_housing().source)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["real\n", "real\n"]
    file = "california_housing.npz"
    assert snapshot(tmp_path / "data") == {str(tmp_path / "data" / file): SMALL[file]}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the small files; those named in `broken` break off in the middle."""

    broken: frozenset[str] = frozenset()

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        content = by_name().get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if name in self.broken else content)

    def log_message(self, *_):
        pass


class SilentHandler(Handler):
    """Takes the question and gives no answer."""

    def do_GET(self):
        time.sleep(3)


class PageHandler(Handler):
    """A proxy that wants to be logged in to."""

    def do_GET(self):
        page = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)


class SlowHandler(Handler):
    """Sends little by little, for longer than nothing may come."""

    def do_GET(self):
        content = by_name()[self.path.rsplit("/", 1)[-1]]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for start in range(0, len(content), len(content) // 8):
            self.wfile.write(content[start : start + len(content) // 8])
            self.wfile.flush()
            time.sleep(0.15)


@pytest.fixture
def server(monkeypatch):
    """Keras's own `get_file`, and a server on this machine that it asks."""
    monkeypatch.setitem(sys.modules, "keras", keras)
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    monkeypatch.setattr(
        files, "address", lambda file: f"http://127.0.0.1:{httpd.server_port}/{Path(file).name}"
    )
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_keras_fetches_the_files(small, server, tmp_path, capsys):
    for name in NAMES:
        assert load(name, Data("real", tmp_path / "data")).source == "real"
    assert snapshot(tmp_path / "data").keys() == {str(tmp_path / "data" / file) for file in SMALL}
    assert "Downloading data from" in capsys.readouterr().err  # what a recipe prints are results


def test_the_page_of_a_proxy_is_named_as_such(small, server, tmp_path):
    server.RequestHandlerClass = PageHandler
    with pytest.raises(DataNotFoundError, match="sent a wrong file \\(it is a web page, perhaps a proxy's"):
        Data("real", tmp_path / "data").mnist()
    assert snapshot(tmp_path) == {}
    write(tmp_path / "data", {"mnist.npz": b"<html><body>Please log in"})  # as a browser or curl leaves it
    with pytest.raises(
        DataNotFoundError, match=r"mnist.npz is a wrong file and was left alone \(it is a web page"
    ):
        Data("real", tmp_path / "data").mnist()


def test_a_server_that_does_not_answer_is_not_waited_for(small, server, tmp_path, monkeypatch):
    assert max(files._CONNECT_SECONDS, files._STALL_SECONDS) <= 15
    monkeypatch.setattr(files, "_STALL_SECONDS", 0.5)
    server.RequestHandlerClass = SilentHandler
    started = time.perf_counter()
    with pytest.raises(DataNotFoundError, match="nothing came for 0 s"):
        Data("real", tmp_path / "data").mnist()
    with pytest.raises(DataNotFoundError, match="nothing came"):
        Data("real", tmp_path / "data").boston_housing()
    assert time.perf_counter() - started < 2.5
    assert snapshot(tmp_path) == {}


def test_a_slow_server_is_waited_for_while_something_comes(small, server, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_STALL_SECONDS", 0.7)
    server.RequestHandlerClass = SlowHandler
    assert Data("real", tmp_path / "data").california_housing().source == "real"


@pytest.mark.slow
def test_two_processes_that_ask_one_server_both_end_well(small, server, tmp_path):
    server.RequestHandlerClass = SlowHandler
    code = f"""
from toolkit.data import Data, files
files.SHA256 = {files.SHA256!r}
files.address = lambda file: "http://127.0.0.1:{server.server_port}/" + file
print(Data("real", {str(tmp_path / "data")!r}).california_housing().source)
"""
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] for process in processes] == ["real\n", "real\n"]
    assert list(snapshot(tmp_path / "data")) == [str(tmp_path / "data/california_housing.npz")]


def test_a_connection_that_breaks_off_does_not_count(small, server, tmp_path, monkeypatch):
    monkeypatch.setattr(Handler, "broken", {"mnist.npz"})
    with pytest.raises(DataNotFoundError, match="retrieval incomplete"):
        Data("real", tmp_path / "data").mnist()
    assert snapshot(tmp_path) == {}
    assert Data("real", tmp_path / "data").boston_housing().source == "real"  # the server is there


def test_a_server_that_is_not_there_is_asked_once(small, server, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(files, "address", lambda file: f"http://127.0.0.1:{port}/{file}")
    with pytest.raises(DataNotFoundError, match="Connection refused"):
        Data("real", tmp_path / "data").mnist()
    assert "Connection refused" in files._unreachable
    assert snapshot(tmp_path) == {}


def test_the_command_fetches_and_verifies(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "keras", sends(by_name()))
    assert download(tmp_path, "mnist")
    assert download(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{tmp_path / 'mnist.npz'}: fetched", f"{tmp_path / 'mnist.npz'}: ok"]
    assert lines[2:] == [f"{tmp_path / file}: fetched" for file in list(SMALL)[1:]]


def test_the_command_says_what_is_wrong(small, tmp_path, monkeypatch, capsys):
    write(tmp_path, {"mnist.npz": b"wrong"})
    calls = []
    monkeypatch.setitem(sys.modules, "keras", sends({"boston_housing.npz": Exception("no")}, calls))
    assert not download(tmp_path, "mnist")
    assert not download(tmp_path, "boston_housing")
    wrong, unreachable = capsys.readouterr().out.splitlines()
    assert "is a wrong file and was left alone (its sha256 is" in wrong
    assert unreachable == f"{tmp_path / 'boston_housing.npz'}: unreachable: no"
    assert [name for name, _ in calls] == ["boston_housing.npz"]
    assert (tmp_path / "mnist.npz").read_bytes() == b"wrong"


def test_the_command_takes_the_folder_of_keras_by_default(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "keras", sends(by_name()))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    assert download(only="mnist")
    assert (tmp_path / "keras/datasets/mnist.npz").exists()


@pytest.mark.parametrize(
    ("sent", "status"), [(SMALL["mnist.npz"], 0), (b"half", 1), (KeyboardInterrupt(), 130)]
)
def test_the_status_of_the_command(sent, status, small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "keras", sends({"mnist.npz": sent}))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    monkeypatch.setattr(sys, "argv", ["download", str(tmp_path / "data"), "--only", "mnist"])
    assert main() == status
    assert len(snapshot(tmp_path)) == (status == 0)
