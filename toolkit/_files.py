"""Write a file whole or not at all, one process at a time; read one only where it is the user's own."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path to write to, beside `path`; without an error, that file then takes the place of `path`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(Path(folder, "a.txt")) as unfinished:
    ...         _ = unfinished.write_text("all of it")
    ...     [file.name for file in Path(folder).iterdir()]
    ['a.txt']
    """
    unfinished = path.with_name(f"unfinished-{path.name}")
    unfinished.unlink(
        missing_ok=True
    )  # one that a killed process has left, or a link that somebody laid there
    try:
        yield unfinished
        flush(unfinished)
        replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def replace(written: Path, path: Path) -> None:
    """Let a flushed file take the place of another one, for good."""
    os.replace(written, path)  # noqa: PTH105 (named for what it does: replace atomically)
    flush(path.parent)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows has no such thing
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_own(path: Path, most: int = 100_000_000) -> bytes:
    """Return what is in a regular file of the user's own, which somebody else may have put there.

    Args:
        path: The file.
        most: The most bytes that it may have; nothing is read of a larger one.

    Raises:
        OSError: There is no such file, or it is a link, or no file, or too large, or another user's.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.txt")
    ...     path.write_bytes(b"mine"), read_own(path, most=4)
    (4, b'mine')
    """
    if path.is_symlink():  # where the system cannot refuse to follow it
        raise PermissionError(f"{path.name} is a link")
    flags = [getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")]  # a pipe would wait
    with contextlib.ExitStack() as stack:
        file = os.open(path, os.O_RDONLY | sum(flags))
        stack.callback(os.close, file)
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise PermissionError(f"{path.name} is no regular file")
        if hasattr(os, "getuid") and status.st_uid not in (os.getuid(), 0):
            raise PermissionError(f"{path.name} belongs to another user, number {status.st_uid}")
        if status.st_size > most:
            raise PermissionError(f"{path.name} has {status.st_size} bytes: at most {most} are read")
        with os.fdopen(file, "rb", closefd=False) as content:
            return content.read(most)


def refuse_links(folder: Path) -> None:
    """Refuse a folder that somebody else may have made, where what is written would go elsewhere.

    Raises:
        OSError: Something in it, at any depth, is a link.
    """
    for path in folder.rglob("*"):  # which follows none
        if path.is_symlink():
            raise PermissionError(f"{path.relative_to(folder)} is a link")


@contextlib.contextmanager
def locked(path: Path, waiting: str = "") -> Iterator[None]:
    """Keep other processes out that lock the same file, which is made if need be, and stays; or a folder.

    The system lets go of it when the process ends, however that is. Where there are no locks, or nobody may
    write, or the file is a link, nobody waits.

    Args:
        path: The file, or a folder that is there.
        waiting: What to print when another process has it.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            made = os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
            flags = os.O_RDONLY if path.is_dir() else made  # which change no time
            file = os.open(path, flags, 0o666)
            stack.callback(os.close, file)
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if waiting:
                        print(waiting)
                    fcntl.flock(file, fcntl.LOCK_EX)
        yield
