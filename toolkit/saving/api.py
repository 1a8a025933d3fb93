"""`save`, `load`, `Checkpoint`: models as `.keras` files, whole or not at all, and never anything hostile.

A `.keras` file is a zip of `metadata.json`, `config.json` (which classes, with which settings),
`model.weights.h5` and perhaps `assets/`. What Keras would build from a config can be chosen freely by whoever
wrote it: `load` reads the file once, in a folder of its own, checks all of it, and then builds.
"""

import concurrent.futures
import contextlib
import errno
import hashlib
import io
import math
import os
import re
import shutil
import socket
import stat
import tempfile
import time
import warnings
from pathlib import Path
from typing import IO, Any, Literal
from zipfile import ZipFile

import keras

from toolkit import _files
from toolkit._files import flush, replace
from toolkit._garbage import uncollected
from toolkit.saving.comparing import compare, write
from toolkit.saving.isolated import try_out
from toolkit.saving.reading import build, guards_bite, snapshot
from toolkit.saving.reasons import lost, reason

_STRAY_SECONDS = 24 * 3600.0


def save(model: Any, path: str | Path) -> Path:
    """Save architecture, weights, compile settings and optimizer state to one `.keras` file.

    The file is written beside `path`, flushed to the disk, loaded back and compared before it takes the place
    of an earlier one: every weight and setting, and predictions for generated rows, where not all is layers
    of Keras. A crash at any moment leaves the earlier file or the new one, with the mode and owner of the
    earlier one; another hard link to that keeps its content. `NAME.keras.sha256`, for `sha256sum -c` and for
    `load`, is removed before the file is replaced and written after it: where it stands, it is right. The
    model stays as it is. What is lost and may matter to training alone, such as exclusions from weight
    decay, is told by a warning.

    Args:
        model: A built Keras model.
        path: File name ending in `.keras`, in a folder that is there.

    Returns:
        The path.

    Raises:
        ValueError: The model would not come back as it is; the message says what to add.
        OSError: The disk is full, or the folder cannot be written to. After any error the earlier file stays.

    >>> model = keras.Sequential([keras.Input(shape=(2,)), keras.layers.Dense(1)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(model, Path(folder, "model.keras"))
    ...     [file.name for file in sorted(Path(folder).iterdir())], load(path).count_params()
    (['model.keras', 'model.keras.sha256'], 3)
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`path` must be a file name, after the model. Received: {type(path).__name__}")
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"`path` must end in .keras, Keras's native format. Received: {str(path)!r}")
    target = Path(os.path.realpath(path))  # through a link, to what it points to
    if not target.parent.is_dir() or (target.exists() and not target.is_file()):
        raise OSError(
            "`path` must be a file name in a folder that is there, of a regular file or of none. "
            f"Received: {str(path)!r}"
        )
    if re.search(r"[\r\n]", target.name):  # which the checksum could not tell
        raise ValueError(f"`path` must be a name without a line end. Received: {str(path)!r}")
    _clear_strays(target.parent)
    folder = Path(tempfile.mkdtemp("", f".saving-{socket.gethostname()}-{os.getpid()}-", target.parent))
    try:
        whole, checksum = folder / "model.keras", folder / "sha256"
        write(model, whole)
        executor = concurrent.futures.ThreadPoolExecutor(1)
        with whole.open("rb") as file, executor as meanwhile, uncollected():
            digest = meanwhile.submit(_flush_and_hash, whole)
            compare(model, _load_back(file), ZipFile(file).read("config.json"))
        checksum.write_bytes(os.fsencode(f"{digest.result()}  {target.name}\n"))
        _like(target, whole, checksum)
        flush(checksum)
        beside = target.with_name(f"{target.name}.sha256")
        with _files.locked(target.parent):
            if beside.exists():
                beside.unlink()
                flush(target.parent)
            replace(whole, target)
            checksum.replace(beside)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return path


def _like(target: Path, *written: Path) -> None:
    """Give files the mode and, where that is allowed, the owner of the file whose place they take."""
    with contextlib.suppress(FileNotFoundError):
        old = target.stat()
        for path in written:
            with contextlib.suppress(OSError, AttributeError):
                os.chown(path, old.st_uid, old.st_gid)
            path.chmod(stat.S_IMODE(old.st_mode))


def _flush_and_hash(path: Path) -> str:
    flush(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_back(file: IO[bytes]) -> Any:
    """Load what was written; what is warned of is told where `save` was called."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            loaded = build(file, trusted=False, to_train=False)
        except Exception as error:
            if _is_of_the_disk(error):
                raise
            raise lost(_way_out(reason(error))) from error
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            warnings.warn(warning.message, stacklevel=3)
    return loaded


def _clear_strays(folder: Path) -> None:
    """Remove what `save` left here in processes that were killed; leave what is being written."""
    for stray in folder.glob(".saving-*"):
        process = re.fullmatch(r"\.saving-(.+)-(\d+)-[a-z0-9_]{8}", stray.name)  # as `mkdtemp` names it
        if not process:
            continue
        with contextlib.suppress(OSError, OverflowError):  # gone meanwhile, or of another user
            dead = time.time() - stray.stat().st_mtime > _STRAY_SECONDS
            if process[1] == socket.gethostname() and os.name != "nt" and not dead:
                try:
                    os.kill(int(process[2]), 0)  # asks only
                except ProcessLookupError:
                    dead = True
            if dead:
                shutil.rmtree(stray)


def _is_of_the_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _way_out(text: str) -> str:
    """Add what to change to a reason for which a model does not come back."""
    if re.search("differ: (.*, )?/(?!optimizer/)|could not be loaded|expected", text):
        text += (
            "\nA class must make and build its sublayers in `build`, such as `self.hidden.build(shape)`, "
            "and take and return each argument in `__init__` and `get_config`."
        )
    return text


def load(
    path: str | Path,
    *,
    sha256: str | None = None,
    trusted: bool = False,
    isolated: bool = False,
    seconds: float = 60.0,
    megabytes: float | None = None,
) -> Any:
    """Load a model that `save` or `model.save` wrote, ready to predict or to train on.

    Refused: a file that is cut off, damaged, or holds anything but a model, be it a byte; classes and
    functions that are neither Keras's own nor registered in this process; code (`Lambda`); weights that are
    declared but not stored; and a model that would not save again all that is stored, bit by bit. How much
    time and memory a model takes is not said by its file: the load of a stranger's should be `isolated`.

    Args:
        path: A `.keras` file. The classes of a subclassed model must be imported and registered with
            `keras.saving.register_keras_serializable`; nothing else that is not Keras's own is taken.
        sha256: What the file must be, as 64 hexadecimal digits, from a source that you trust.
        trusted: Whether you trust the file as you trust a program that you run: what it says is then not
            checked and may run code. Whether it is whole is checked all the same.
        isolated: Whether a process of its own first loads the file and lets the model predict, with limits of
            time and memory, without the network, in an empty folder. That process stays for further files,
            each of which has its own limits. It knows registered classes of modules that it can import, not
            those of a script that runs (`__main__`). Elsewhere than on Linux only the time is limited.
        seconds: The longest that an isolated load may take, at most a million.
        megabytes: The most memory that an isolated load may take beside TensorFlow itself; by default 1,000
            and ten times the file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is refused, or in another format; the message says why.
        RuntimeError: Keras lacks a guard that the check of a file relies on.

    >>> load("model.h5")
    Traceback (most recent call last):
    FileNotFoundError: `path` must be a .keras file. Received: 'model.h5', which is no file.
    """
    path = Path(path)
    if path.is_dir() or (path.suffix in (".h5", ".hdf5") and path.exists()):
        kind = "a folder, perhaps a SavedModel" if path.is_dir() else "Keras's old format"
        raise ValueError(
            f"`path` must end in .keras. Received: {str(path)!r}, {kind}. Load it with the Keras version "
            "that wrote it (a SavedModel of Keras 3 with tf.saved_model.load), then save it as .keras."
        )
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a .keras file. Received: {str(path)!r}, which is no file.")
    if path.suffix != ".keras":
        raise ValueError(f"`path` must end in .keras. Received: {str(path)!r}")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"`sha256` must be 64 hexadecimal digits. Received: {sha256!r}")
    if not trusted:
        guards_bite()
    if isolated and trusted:
        raise ValueError("`isolated` is for files that are not trusted. Received: both of them as True")
    megabytes_or_any = 1 if megabytes is None else megabytes
    for name, limit, most in (("seconds", seconds, 1e6), ("megabytes", megabytes_or_any, 1e9)):
        if not isinstance(limit, int | float) or not 0 < limit <= most:  # which timers and systems take
            raise ValueError(f"`{name}` must be a positive number, at most {most:,.0f}. Received: {limit!r}")
    try:
        if isolated:
            sha256 = sha256 or try_out(path, seconds, megabytes)
        content = snapshot(path)
        if sha256 is not None and (digest := hashlib.sha256(content).hexdigest()) != sha256.lower():
            raise ValueError(f"it is another file: its sha256 is {digest}, not {sha256.lower()}")
        return build(io.BytesIO(content), trusted)
    except Exception as error:  # zipfile, h5py, Keras and TensorFlow raise of all kinds
        if _is_of_the_disk(error):
            raise  # the fault of the disk that the members are on
        raise ValueError(f"{path} is refused: {reason(error)}") from error


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """`save` after each epoch, or after each that is the best so far: for `fit` of Keras and of the toolkit.

    Args:
        path: As in `save`.
        monitor: Score of the epoch that tells the best, such as "val_loss"; None saves after each epoch.
        mode: Whether the best is the smallest ("min") or the largest ("max").

    Attributes:
        best: The best score so far, or None.

    Raises:
        ValueError: `mode` is another word; or, after an epoch, there is no such score, or as in `save`.

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input(shape=(2,)), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = Checkpoint(Path(folder, "best.keras"), monitor="loss")
    ...     history = model.fit(np.ones((4, 2)), np.ones(4), epochs=2, verbose=0, callbacks=[checkpoint])
    ...     load(checkpoint.path).evaluate(np.ones((4, 2)), np.ones(4), verbose=0) < checkpoint.best
    True
    """

    def __init__(
        self, path: str | Path, monitor: str | None = None, mode: Literal["min", "max"] = "min"
    ) -> None:
        super().__init__()
        if mode not in ("min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max'. Received: {mode!r}")
        self.path, self.monitor, self.mode = Path(path), monitor, mode
        self.best: float | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Save the model, where this epoch is one to be saved."""
        logs = logs or {}
        if self.monitor is None:
            save(self.model, self.path)
            return
        if self.monitor not in logs:
            raise ValueError(f"`monitor` must be one of {', '.join(logs)}. Received: {self.monitor!r}")
        score = float(logs[self.monitor])
        sign = 1 if self.mode == "min" else -1
        if sign * score < sign * (sign * math.inf if self.best is None else self.best):
            save(self.model, self.path)
            self.best = score
