"""Try a file from a stranger in a process that may take so much time and memory, and no more.

Some files that hold nothing forbidden harm whoever loads them: a library in C loops for ever over them, a
regular expression takes exponential time, a layer asks for gigabytes. What a file does is seen by loading
it where it can do no harm. A process imports TensorFlow, once, and waits; each file is tried by a copy of it,
which starts at once, has limits of its own, and is gone afterwards.
"""

import atexit
import contextlib
import ctypes
import hashlib
import importlib
import io
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from toolkit.saving.comparing import try_to_predict
from toolkit.saving.reading import build, snapshot
from toolkit.saving.reasons import reason

try:
    import resource
except ImportError:  # Windows, where only the wall clock is a limit
    resource = None  # type: ignore[assignment]

_KEPT = ["PATH", "LANG", "LD_LIBRARY_PATH", "KERAS_BACKEND", "SYSTEMROOT", "TF_ENABLE_ONEDNN_OPTS"]
_SHORT = re.compile("OOM when|bad_alloc|[Uu]nable to allocate|allocation failed|[Oo]ut of memory")
_THREADS = 2  # each takes memory for its stack, and a machine may have a hundred cores
_START_SECONDS = 120.0
_ANSWER_BYTES = 100_000
_NO_NEW_PRIVS, _DIE_WITH_PARENT, _NEW_NETWORK, _NEW_USER = 38, 1, 0x4000_0000, 0x1000_0000  # of Linux
_lock = threading.Lock()
_servers: list[subprocess.Popen[str]] = []


def try_out(path: Path, seconds: float, megabytes: float | None) -> str:
    """Load a file in a process of its own, let the model predict, and return the sha256 of what was loaded.

    Args:
        path: A `.keras` file.
        seconds: Wall clock for all of it.
        megabytes: Memory beside that of TensorFlow itself; by default 1,000 and ten times the file.

    Raises:
        ValueError: It is refused there, or exceeds a limit, or ends its process.
    """
    size = path.stat().st_size
    megabytes = 1_000 + 1e-5 * size if megabytes is None else megabytes
    modules = {cls.__module__ for cls in keras.saving.get_custom_objects().values()} - {"__main__"}
    request = {
        "path": str(path.resolve()),
        "seconds": seconds,
        "bytes": int(1e6 * megabytes),
        "size": size,
        "sys.path": _search_path(),
        "modules": sorted(name for name in modules if name.split(".")[0] != "keras"),
    }
    with _lock:
        answer = _ask(request)
    if "sha256" not in answer:
        raise ValueError(answer["reason"])
    return str(answer["sha256"])


def _ask(request: dict[str, Any], again: bool = True) -> dict[str, Any]:
    """Send a request to the process that waits, or to a new one; `again` where somebody ended that one."""
    if not _servers or _servers[0].poll() is not None:
        for dead in _servers:
            _stop(dead)
        _servers[:] = [_start()]
    server = _servers[0]
    assert server.stdin
    assert server.stdout
    limit = request["seconds"] + _START_SECONDS
    deadline, stop = time.monotonic() + limit, threading.Timer(limit, server.kill)
    stop.start()
    try:
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        return dict(json.loads(server.stdout.readline()))
    except (OSError, ValueError):
        _stop(server)
        _servers.clear()
        if again and time.monotonic() < deadline:  # no fault of the file, which a copy of the process tries
            return _ask(request, again=False)
        return {"reason": "the process that was to try it ended"}
    finally:
        stop.cancel()


def _stop(server: subprocess.Popen[str]) -> None:
    server.kill()
    with contextlib.suppress(OSError), server:  # which closes its pipes and waits
        pass


def _search_path() -> list[str]:
    return [str(Path(each).absolute()) for each in sys.path]


def _start() -> subprocess.Popen[str]:
    """Start the process that waits for files; it ends with this one."""
    environment = {key: os.environ[key] for key in _KEPT if key in os.environ}
    environment |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join(_search_path())
    command = [sys.executable, "-c", "from toolkit.saving.isolated import serve; serve()"]
    server = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # a Ctrl-C here is not for it
    )
    atexit.register(_stop, server)
    return server


# In the process that waits, and in its copies


def serve() -> None:
    """Answer each line of the input, a request, by a line; the input ends with the process that asks."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)  # what modules print is no answer
        for line in sys.stdin:
            request = json.loads(line)
            folder = tempfile.mkdtemp(prefix="toolkit-isolated-")
            try:
                answer = _copy(request, folder) if hasattr(os, "fork") else _try(request, folder)
            finally:
                os.chdir(tempfile.gettempdir())
                shutil.rmtree(folder, ignore_errors=True)
            print(json.dumps(answer), file=out, flush=True)
            if not hasattr(os, "fork"):
                return


def _copy(request: dict[str, Any], folder: str) -> dict[str, Any]:
    """Try a file in a copy of this process, and end it when its time is over."""
    seconds, deadline = request["seconds"], time.monotonic() + request["seconds"]
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            os.setsid()
            os.write(sink, json.dumps(_try(request, folder)).encode())
        os._exit(0)
    os.close(sink)
    answer, in_time = b"", True
    while len(answer) < _ANSWER_BYTES:
        in_time = bool(select.select([source], [], [], max(0.0, deadline - time.monotonic()))[0])
        chunk = os.read(source, _ANSWER_BYTES) if in_time else b""
        if not chunk:
            break
        answer += chunk
    os.close(source)
    for end in (os.killpg, os.kill):  # with what it started, where it came as far
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if not in_time:
        return {"reason": f"it did not load and predict within {seconds:g} seconds (`seconds`)"}
    with contextlib.suppress(ValueError):
        return dict(json.loads(answer))
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number == getattr(signal, "SIGXCPU", None):
        return {"reason": f"it took more than the processor's time of {seconds:g} seconds (`seconds`)"}
    ended = f"by {signal.Signals(number).name}" if number else "without a word"
    return {"reason": f"it ended its process {ended}, perhaps for want of memory: {_memory(request)}"}


def _memory(request: dict[str, Any]) -> str:
    return f"{request['bytes'] / 1e6:,.0f} MB were allowed (`megabytes`)"


def _try(request: dict[str, Any], folder: str) -> dict[str, Any]:
    """Load a file and let the model predict, under the limits of the system."""
    os.environ |= {"HOME": folder, "TMPDIR": folder, "KERAS_HOME": folder}
    tempfile.tempdir = folder
    os.chdir(folder)
    sys.path[:] = request["sys.path"]
    for name in request["modules"]:  # of registered classes; what cannot be imported is missed by name
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    with contextlib.suppress(RuntimeError):  # a module used TensorFlow before
        tf.config.threading.set_intra_op_parallelism_threads(_THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(_THREADS)
    _set_limits(request)
    try:
        content = snapshot(Path(request["path"]))
        model = build(io.BytesIO(content), trusted=False)
        predicted = try_to_predict(model)
        if isinstance(predicted, MemoryError | tf.errors.ResourceExhaustedError):
            raise predicted
        return {"sha256": hashlib.sha256(content).hexdigest()}
    except Exception as error:
        kinds = MemoryError | tf.errors.ResourceExhaustedError
        short = isinstance(error, kinds) or isinstance(error.__cause__, kinds)
        if short or _SHORT.search(str(error)):
            return {"reason": f"it needs too much memory: {_memory(request)}"}
        return {"reason": reason(error)[:2_000]}


def _set_limits(request: dict[str, Any]) -> None:
    """Limit memory, time and files of this process, and take the network and new rights from it."""
    if resource is None:
        return
    cores = os.cpu_count() or 1
    limits = {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": int(cores * request["seconds"]) + 1,  # ends a child whose parents are gone, too
        "RLIMIT_FSIZE": request["size"] + (1 << 24),
    }
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        data = re.search(r"VmData:\s+(\d+) kB", status)
        limits |= {"RLIMIT_DATA": 1024 * int(data[1]) + request["bytes"]} if data else {}
    for name, limit in limits.items():
        resource.setrlimit(getattr(resource, name), (limit, limit))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        if libc.unshare(_NEW_NETWORK):  # which root may; others become a user of their own first, if they may
            libc.unshare(_NEW_USER | _NEW_NETWORK)
        libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
