"""Hold back TensorFlow's start-up chatter, which no setting of its own can silence, and nothing else."""

import atexit
import os
import re
import sys
import tempfile
from typing import IO

# TensorFlow writes these before it reads TF_CPP_MIN_LOG_LEVEL: information, warnings, and the "error" 303,
# which only says that no NVIDIA driver is installed.
_CHATTER = re.compile(
    r"[IW]\d{4} |WARNING: All log messages before absl|To enable the following instructions|.*cuInit.*\(303\)"
)
_held: list[tuple[IO[bytes], int]] = []  # the file that standard error goes to, and where it went before


def hold() -> None:
    """Keep standard error back until `release`, or the end of the process if that comes first."""
    if not _held:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (open until `release`)
        _held.append((file, os.dup(2)))
        os.dup2(file.fileno(), 2)
        atexit.register(release)


def release() -> None:
    """Show what was kept back, without the chatter, and let standard error through again.

    >>> release()  # nothing is held: nothing happens
    """
    while _held:
        file, stderr = _held.pop()
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        with file:
            file.seek(0)
            lines = file.read().decode(errors="replace").splitlines(keepends=True)
        sys.stderr.write("".join(line for line in lines if not _CHATTER.match(line)))
