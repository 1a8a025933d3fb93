"""Hide the harmless lines that TensorFlow logs to standard error, and nothing else.

TensorFlow writes lines that no setting of its own can silence. So another process reads what this one writes
to standard error, from C++ too, and passes on all but them. It outlives a crash: no last word is lost.
"""

import atexit
import contextlib
import os
import re
import subprocess
import sys

# Information and warnings, which TensorFlow writes before it reads TF_CPP_MIN_LOG_LEVEL, and some "errors":
# 303 only says that no NVIDIA driver is installed, the next one that a mask is not sped up. When XLA loads
# what it has compiled, it misses an instruction in what is a preference, and it tries a text format first.
HARMLESS = re.compile(
    rb"[IW]\d{4} "
    rb"|WARNING: All log messages before absl"
    rb"|To enable the following instructions"
    rb"|E\d{4} .*cuInit.*\(303\)"
    rb"|E\d{4} .*oneDNN supports DT_BOOL only on platforms with AVX-512"
    rb"|E\d{4} .*Loading XLA:CPU AOT result\. Target machine feature \+prefer-no-(scatter|gather) is not "
    rb"|E\d{4} .*Error parsing text-format tensorflow\.XlaSerializedCacheEntry"
)
_started: list[subprocess.Popen[bytes]] = []


def start() -> None:
    """Hide the harmless lines from here to the end of the process, unless TensorFlow shall warn.

    Python's own `sys.stderr` still goes straight to where it went: an error message waits for nobody.
    """
    if _started or sys.stderr is None or os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2") < "2":
        return
    sys.stderr.flush()
    straight = os.dup(2)
    command = [sys.executable, "-I", "-S", __file__]
    # A session of its own: Ctrl-C must not end it before the last line is through.
    sieve = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=straight, start_new_session=True)
    assert sieve.stdin is not None
    os.dup2(sieve.stdin.fileno(), 2)
    sieve.stdin.close()
    encoding, errors = sys.stderr.encoding, sys.stderr.errors
    sys.stderr = open(straight, "w", buffering=1, encoding=encoding, errors=errors)  # noqa: SIM115, PTH123
    _started.append(sieve)
    atexit.register(_end)


def _end() -> None:
    """Wait until all lines are through, or they would appear after the prompt."""
    sys.stderr.flush()
    os.dup2(sys.stderr.fileno(), 2)
    with contextlib.suppress(subprocess.TimeoutExpired):  # a process that we started may live on
        _started.pop().wait(timeout=2)


def let_readers_leave() -> None:
    """Do not complain, when the process ends, that whoever read its output has left, as `head` does."""

    def flush() -> None:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    atexit.register(flush)


def sieve(source: int, target: int) -> None:
    r"""Pass on what comes, without the harmless lines; what is not yet a whole line is not kept back.

    >>> reading, writing = os.pipe()
    >>> _ = os.write(writing, b"W0000 a warning\nE0000 an error\n")
    >>> os.close(writing)
    >>> out, into = os.pipe()
    >>> sieve(reading, into)
    >>> os.read(out, 100)
    b'E0000 an error\n'
    """
    begins, hidden = True, False
    while chunk := os.read(source, 1 << 16):
        for line in chunk.splitlines(keepends=True):
            hidden = bool(HARMLESS.match(line)) if begins else hidden
            begins = line.endswith(b"\n")
            while line and not hidden:
                line = line[os.write(target, line) :]


if __name__ == "__main__":
    with contextlib.suppress(OSError):  # nobody reads any more
        sieve(0, 1)
