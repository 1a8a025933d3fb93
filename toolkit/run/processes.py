"""The runs of a study as processes of this machine: how many at once, on which cores, again if killed."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

import psutil

from toolkit.run import report

TRIES = 3  # a run that is killed so many times is given up
JOB_BYTES = 2_000_000_000  # of memory: the most that a recipe takes


def start(
    recipe: Sequence[str], place: Path, output: IO[bytes], cache: str | None = None
) -> "subprocess.Popen[bytes]":
    """Start the run that a folder's report describes.

    Args:
        recipe: What comes after `python` to start the recipe.
        place: The folder.
        output: Where goes what it prints.
        cache: RECIPES_CACHE for it; by default that of this process.
    """
    # The code of this process, wherever else there is some; a session of its own: Ctrl-C shall come once.
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, *recipe, "--resume", str(place)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        | ({} if cache is None else {"RECIPES_CACHE": cache}),
        start_new_session=True,
    )


class Processes:
    """Runs so many jobs at once; those that are left at the end are killed.

    Args:
        recipe: What comes after `python` to start the recipe.
        folder: That of the study.
        number: Jobs at once.
    """

    def __init__(self, recipe: Sequence[str], folder: Path, number: int) -> None:
        self.recipe, self.folder, self.number = recipe, folder, number
        self.running: set[subprocess.Popen[bytes]] = set()
        self.ended = False
        self.lock = threading.Lock()  # no process may begin after all have been told to end
        cores = _cores()
        shares = iter([cores[i::number] or [cores[i % len(cores)]] for i in range(number)] if cores else [])

        def pin() -> None:
            if cores:
                os.sched_setaffinity(0, next(shares))  # of this thread, and of the processes that it starts

        self.executor = concurrent.futures.ThreadPoolExecutor(number, initializer=pin)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.executor.shutdown(wait=kind is None)
        finally:  # a second Ctrl-C, say
            self._signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)

    def submit(self, place: str) -> "Future[Any]":
        """Let a job be run when its turn comes."""
        return self.executor.submit(self._run, self.folder / place)

    def finish(self, place: str, future: "Future[Any]") -> None:
        """Take note that a job has ended."""
        future.result()

    def interrupt(self) -> None:
        """Tell all jobs to end, as Ctrl-C would; those that wait for their turn do not begin."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        self._signal(signal.SIGINT)

    def _signal(self, number: int) -> None:
        self.ended = True
        with self.lock:
            for process in self.running:
                process.send_signal(number)

    def _run(self, place: Path) -> None:
        """Run a job to its end, and again, from its checkpoint, if something else kills it."""
        for _ in range(TRIES):
            with (place / "output.txt").open("ab") as output:
                with self.lock:
                    if self.ended:
                        return
                    process = start(self.recipe, place, output)
                    self.running.add(process)
                status = process.wait()
                with self.lock:
                    self.running.discard(process)
            content = report.read(place)
            if content["status"] not in ("waiting", "running"):
                return
        if not self.ended:
            error = f"it ended {TRIES} times before its end, with status {status}"
            report.write(place, content | {"status": "failed", "error": error})


def default_number() -> int:
    """Return how many runs the cores and the free memory allow at once; on a GPU, one."""
    if any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/dxg")):
        return 1
    cores = len(_cores()) or os.cpu_count() or 1
    return max(1, min(cores, int(psutil.virtual_memory().available) // JOB_BYTES))


def _cores() -> list[int]:
    """Return the numbers of the cores that this process may use, where the system can tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
