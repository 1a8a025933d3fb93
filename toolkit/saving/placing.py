"""Put a file and its checksum in place, one process at a time, and clear what killed ones left."""

import contextlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where two processes that save to one path at one time are not kept apart
    fcntl = None  # type: ignore[assignment]

_STRAY_SECONDS = 24 * 3600.0


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time replace files in a folder; the lock ends with the process."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def clear_strays(folder: Path) -> None:
    """Remove what `save` left here in processes that were killed; leave what is being written."""
    host = re.escape(socket.gethostname())
    for stray in folder.glob(".saving-*"):
        process = re.fullmatch(rf"\.saving-{host}-(\d+)-.*", stray.name) if os.name != "nt" else None
        with contextlib.suppress(OSError, OverflowError):  # gone meanwhile, or of another user
            dead = time.time() - stray.stat().st_mtime > _STRAY_SECONDS
            if process and not dead:
                try:
                    os.kill(int(process[1]), 0)  # asks only
                except ProcessLookupError:
                    dead = True
            if dead:
                shutil.rmtree(stray)
