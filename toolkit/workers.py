"""A function in several processes that find each other: the workers of one training, on one machine.

What a lesson on distributed training need not show: starting and ending processes, free ports, `TF_CONFIG`.
No worker outlives the process that started it, however that one ends.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import pickle
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import cloudpickle

from toolkit import caching, quiet

_PORT_TAKEN = "Could not start gRPC server"  # what TensorFlow says then
_POLL_SECONDS = 0.05


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What a worker returned, or the error that kept it from that, and when, in seconds."""

    value: Any
    error: str
    when: float


def run_workers(
    function: Callable[..., Any], *arguments: Any, count: int = 1, patience: float = 12.0
) -> list[Any]:
    """Call `function(rank, *arguments)` in `count` new processes at once, and wait until all have ended.

    More than one are a cluster for `tf.distribute.MultiWorkerMirroredStrategy`: each has its `TF_CONFIG`, its
    share of the cores, and a GPU of its own, or none where there are too few. What they print is printed
    here, each line behind the name of its worker.

    Args:
        function: It may be defined in a notebook. What it returns must be picklable.
        arguments: They are sent to each worker.
        count: Number of workers.
        patience: Seconds in which the others must end after a worker has failed; then they are killed.

    Returns:
        What each worker returned, by rank.

    Raises:
        ValueError: If `count` is less than 1.
        ChildProcessError: If a worker fails or is killed. It says why, and how soon the others stopped.

    >>> run_workers(pow, 2, count=3)  # pow(rank, 2)
    [0, 1, 4]
    """
    if count < 1:
        raise ValueError(f"`count` must be at least 1. Received: count={count}")
    outcomes = _run(function, arguments, count, patience)
    if any(_PORT_TAKEN in outcome.error for outcome in outcomes):  # by another program, in the meantime
        outcomes = _run(function, arguments, count, patience)
    failed = [rank for rank, outcome in enumerate(outcomes) if outcome.error]
    if failed:
        times = [outcomes[rank].when for rank in failed]
        within = f"{len(failed)} of {count} workers stopped within {max(times) - min(times):.1f} s"
        raise ChildProcessError("\n".join([within, *(f"worker {n}: {outcomes[n].error}" for n in failed)]))
    return [outcome.value for outcome in outcomes]


def time_calls(function: Callable[..., Any], *arguments: Any, count: int = 12) -> float:
    """Return the seconds that a call takes: the median, without the first four, which may compile.

    Args:
        function: It must have done its work when it returns.
        arguments: What it is called with.
        count: Number of calls, more than 4.

    >>> 0.01 <= time_calls(time.sleep, 0.01, count=6) < 1
    True
    """
    clock = []
    for _ in range(count):
        function(*arguments)
        clock.append(time.perf_counter())  # after the call
    return statistics.median(after - before for before, after in itertools.pairwise(clock[3:]))


def devices(at_least: int) -> list[str]:
    """Return the names of the GPUs, or, where there are too few, of so many parts of the processor.

    Parts of a processor are no faster than the whole, but TensorFlow treats them as it treats GPUs. It must
    not have begun to work in this process, hence a worker is the place to ask for them.

    Args:
        at_least: How many are needed.

    Raises:
        RuntimeError: If TensorFlow has begun to work, and there are too few GPUs.
    """
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus >= at_least:
        return [f"GPU:{number}" for number in range(gpus)]
    processor = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(at_least)]
    tf.config.set_logical_device_configuration(processor, parts)
    return [f"CPU:{number}" for number in range(at_least)]


def _run(
    function: Callable[..., Any], arguments: Sequence[Any], count: int, patience: float
) -> list[_Outcome]:
    call = cloudpickle.dumps((function, arguments))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ending:
        results = [Path(folder, f"{rank}.pickle") for rank in range(count)]
        workers = []
        for rank, environment in enumerate(_environments(count)):
            worker = _start(environment)
            workers.append(worker)
            printing = threading.Thread(target=_print_lines, args=(worker.stdout, f"worker {rank}: "))
            printing.start()
            ending.callback(printing.join)
            ending.callback(_end, worker)  # which comes first, also after an error or Ctrl-C
        for rank, worker in enumerate(workers):
            with contextlib.suppress(BrokenPipeError):  # it has ended already
                assert worker.stdin
                pickle.dump((rank, results[rank], call), worker.stdin)
                worker.stdin.flush()
        return _outcomes(workers, results, patience)


def _environments(count: int) -> list[dict[str, str]]:
    """Return what the environment of each worker tells it of the cluster, and of its share of the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    common = os.environ | {
        "PYTHONPATH": os.pathsep.join(str(Path(each).absolute()) for each in sys.path),
        "TF_NUM_INTRAOP_THREADS": str(max(1, cores // count)),
        "TF_CPP_MIN_LOG_LEVEL": "3",  # its errors are raised, too; logged, they would come many times
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "NVIDIA_TF32_OVERRIDE": "0",  # numbers must not depend on where they are computed
    }
    common["TF_XLA_FLAGS"] = caching.without_cache(common.get("TF_XLA_FLAGS", ""))
    common.pop("TF_CONFIG", None)
    if count == 1:
        return [common]
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
    cluster = {"worker": [f"127.0.0.1:{port}" for port in _free_ports(count)]}
    return [
        common
        | {
            "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}}),
            "CUDA_VISIBLE_DEVICES": visible[rank] if gpus >= count else "-1",
        }
        for rank in range(count)
    ]


def _free_ports(count: int) -> list[int]:
    """Return so many ports that nobody uses now; whoever wants one of them must be quick."""
    with contextlib.ExitStack() as held:  # all at once, or the same one might come twice
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _start(environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", "from toolkit.workers import _main; _main()"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the process that waits for it
    )


def _end(worker: "subprocess.Popen[bytes]") -> None:
    worker.kill()
    worker.wait()
    with contextlib.suppress(BrokenPipeError):
        assert worker.stdin
        worker.stdin.close()


def _print_lines(lines: IO[bytes] | None, name: str) -> None:
    assert lines
    with lines:
        for line in lines:
            print(name + line.decode(errors="replace").rstrip("\r\n"), flush=True)


def _outcomes(
    workers: "Sequence[subprocess.Popen[bytes]]", results: Sequence[Path], patience: float
) -> list[_Outcome]:
    """Wait until each worker has returned or failed; kill those that wait in vain for one that has failed."""
    found: dict[int, _Outcome] = {}
    deadline = float("inf")
    while len(found) < len(workers):
        time.sleep(_POLL_SECONDS)
        for rank in set(range(len(workers))) - set(found):
            status, now = workers[rank].poll(), time.monotonic()
            if results[rank].exists():
                value, error = pickle.loads(results[rank].read_bytes())
            elif status is not None:
                how = (
                    f"killed by {signal.Signals(-status).name}"
                    if status < 0
                    else f"its process ended with status {status}"
                )
                value, error = None, how
            elif now > deadline:
                workers[rank].kill()
                value, error = None, f"it waited more than {patience:g} s for a worker that had failed"
            else:
                continue
            found[rank] = _Outcome(value, error, now)
            if error:
                deadline = min(deadline, now + patience)
    return [found[rank] for rank in range(len(workers))]


# In the worker


def _main() -> None:
    """Do what the input says; end when it ends, as it does with the process that writes it."""
    quiet.start()
    rank, path, call = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    value, error = None, ""
    try:
        function, arguments = pickle.loads(call)
        value = function(rank, *arguments)
    except BaseException as raised:  # SystemExit, too
        error = f"{type(raised).__name__}: {raised}"
    sys.stdout.flush()
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(cloudpickle.dumps((value, error)))
    unfinished.replace(path)
    if not error:  # others may still fetch from here what this one has long added up
        threading.Event().wait()
    os._exit(1)  # at once: TensorFlow's own end would wait for the others


def _leave_with_parent() -> None:
    while os.read(0, 1):  # not through Python's file, which would be locked at the end
        pass
    os._exit(1)
