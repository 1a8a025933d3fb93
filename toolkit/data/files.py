"""The files of the data sets: where they lie, whether they are the right ones, and how they are fetched."""

import contextlib
import errno
import hashlib
import itertools
import os
import socket
import stat
import sys
import tempfile
import threading
import time
import urllib.error
from collections.abc import Iterable
from pathlib import Path

# As `sha256sum` writes it; Keras publishes the same of the .npz files, and of the others less or nothing.
_CHECKSUMS = """\
731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1  mnist.npz
3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84  fashion-mnist/train-images-idx3-ubyte.gz
a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845  fashion-mnist/train-labels-idx1-ubyte.gz
346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073  fashion-mnist/t10k-images-idx3-ubyte.gz
67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5  fashion-mnist/t10k-labels-idx1-ubyte.gz
69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f  imdb.npz
027313fe9a320280f3bf0fac5baf58c4a683cf39a7ed9c3d3d3912bde4284cf6  imdb_word_index.json
d6586e694ee56d7a4e65172e12b3e987c03096cb01eab99753921ef915959916  reuters.npz
9b56000edc4b34a32e89fd5a23b2605594682c74efcf7d8f4e2a5514b771e633  reuters_word_index.json
f553886a1f8d56431e820c5b82552d9d95cfcb96d1e678153f8839538947dff5  boston_housing.npz
1a2e3a52e0398de6463aebe6f4a8da34fb21fbb6b934cf88c3425e766f2a1a6f  california_housing.npz
"""
SHA256 = {file: sha256 for sha256, file in map(str.split, _CHECKSUMS.splitlines())}
_NAMES = ("mnist", "fashion-mnist", "imdb", "reuters", "boston_housing", "california_housing")
FILES = {name.replace("-", "_"): [file for file in SHA256 if file.startswith(name)] for name in _NAMES}
_CONNECT_SECONDS = 10.0
_STALL_SECONDS = 12.0
_download_lock = threading.Lock()
_unreachable = ""  # why this process could not connect: the next data set does not wait again


def download(folder: str | Path | None = None, only: str | None = None) -> bool:
    """Fetches what is missing, verifies what is there, prints one line a file; tells whether all are right.

    Args:
        folder: Where to; by default the folder of data sets that Keras itself uses.
        only: One data set instead of all six.

    Raises:
        ValueError: If `only` is no data set.

    >>> download(only="mnits")
    Traceback (most recent call last):
    ValueError: `only` must be one of mnist, ... Received: 'mnits'
    """
    if only not in (None, *FILES):
        raise ValueError(f"`only` must be one of {', '.join(FILES)}. Received: {only!r}")
    place = places(folder)[0]
    failures = 0
    for file in itertools.chain.from_iterable([FILES[only]] if only else FILES.values()):
        problems: list[str] = []
        state = "ok"
        if not read(file, [place], problems) and not problems:
            state = "fetched"
            try:
                fetch(file, [place])
            except OSError as error:
                problems.append(f"unreachable: {error}")
        failures += len(problems)
        print(f"{place / file}: {problems[0] if problems else state}", flush=True)
    return not failures


def places(folder: str | Path | None) -> list[Path]:
    """The folders to look in; downloads go to the first that can be written to."""
    found = [Path(os.environ.get("KERAS_HOME") or "~/.keras", "datasets"), Path("~/.keras/datasets")]
    if folder is not None:
        found.insert(0, Path(folder))
        if (below := Path(folder, "datasets")).expanduser().is_dir():
            found.insert(0, below)
    return list(dict.fromkeys(place.expanduser() for place in found))


def read(file: str, folders: Iterable[Path], problems: list[str]) -> bytes:
    """The content of the first right file, or b"". What is wrong with others goes into `problems`."""
    for path in (folder / file for folder in folders):
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # a pipe could be waited for without end
                raise OSError(errno.EINVAL, "it is no regular file")
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            problems.append(f"{path} cannot be read ({error.strerror})")
            continue
        if not (wrong := difference(file, content)):
            return content
        problems.append(f"{path} is a wrong file and was left alone ({wrong})")
    return b""


def difference(file: str, content: bytes) -> str:
    """What is wrong with the content of a file, or ""."""
    received, wanted = hashlib.sha256(content).hexdigest(), SHA256[file]
    page = content[:200].lstrip().lower().startswith((b"<!doctype html", b"<html", b"<head", b"<?xml"))
    kind = "it is a web page, perhaps a proxy's or a log-in's; " if page else ""
    return "" if received == wanted else f"{kind}its sha256 is {received}, not {wanted}"


def fetch(file: str, folders: Iterable[Path]) -> bytes:
    """Downloads a file through Keras into the first place that can be written to.

    It gets its name there only when it is whole and verified. A failure, which raises an OSError, leaves
    nothing behind.
    """
    global _unreachable
    with _download_lock, contextlib.ExitStack() as stack:
        if _unreachable:
            raise ConnectionError(_unreachable)
        for target in (folder / file for folder in folders):
            with contextlib.suppress(OSError):
                parent = next(folder for folder in target.parents if folder.is_dir())
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".download-", dir=parent))
                break
        else:
            raise PermissionError("no folder to write to")
        stack.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())
        socket.setdefaulttimeout(_CONNECT_SECONDS)
        download = Path(folder, target.name)
        try:
            _receive(address(file), download)
            content = download.read_bytes()
        except Exception as error:  # Keras raises nothing narrower
            cause = error.__context__ or error
            reason = str(getattr(cause, "reason", error))
            if type(cause) is urllib.error.URLError or isinstance(cause, TimeoutError | ConnectionError):
                _unreachable = reason
            raise ConnectionError(reason) from error
        if wrong := difference(file, content):
            raise ConnectionError(f"{address(file)} sent a wrong file ({wrong})")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(download)  # unlike a rename, never replaces a file
        except FileExistsError:
            pass  # another process was quicker, or a wrong file is in the way
        except OSError:  # a file system without links
            if not target.exists():
                download.rename(target)
        return content


def _receive(url: str, path: Path) -> None:
    """Downloads into an empty folder; raises TimeoutError when that has not grown for some seconds.

    The time-out of sockets is one for each address that a name stands for, and there may be a dozen.
    """
    import keras  # here, because files that are on the disk should not wait for TensorFlow

    failures: list[BaseException] = []

    def work() -> None:
        try:
            keras.utils.get_file(path.name, origin=url, cache_dir=path.parent, cache_subdir="")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    size, since = -1, time.monotonic()
    with contextlib.redirect_stdout(sys.stderr):  # the progress bar is not a result
        thread.start()
        while thread.is_alive():
            thread.join(0.05)
            with contextlib.suppress(OSError):  # a file that is just being renamed
                before, size = size, sum(part.stat().st_size for part in path.parent.iterdir())
                if size != before:
                    since = time.monotonic()
            if time.monotonic() - since > _STALL_SECONDS:
                raise TimeoutError(f"nothing came for {_STALL_SECONDS:.0f} s")
    if failures:
        raise failures[0]


def address(file: str) -> str:
    """Where Keras downloads a file from."""
    return f"https://storage.googleapis.com/tensorflow/tf-keras-datasets/{Path(file).name}"
