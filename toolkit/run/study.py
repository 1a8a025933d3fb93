"""Many runs of a recipe: each seed with each value of an option, as processes, and what they gave together.

A run of a study is a command that a person could type, so its scores are those of that run alone. Its folder
holds its report before it begins: what is not finished goes on with `--resume`, and so does the study.
"""

import concurrent.futures
import contextlib
import dataclasses
import datetime
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.run import options, report, results
from toolkit.run.options import Common, Options
from toolkit.run.recipe import Recipe

VERSION = 1  # of study.json
TRIES = 3  # a run that is killed so many times is given up
JOB_BYTES = 2_000_000_000  # of memory: the most that a recipe takes


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a study.

    Attributes:
        label: The options that were varied, "units=4"; empty where seeds alone differ.
        seed: Its seed.
        folder: Its folder, within that of the study.
    """

    label: str
    seed: int
    folder: str

    @property
    def title(self) -> str:
        """What tells it apart."""
        return ", ".join([*([self.label] if self.label else []), f"seed={self.seed}"])


def run(recipe: Recipe, variants: Mapping[str, Options], common: Common) -> int:
    """Run a recipe with every variant and every seed, and return the exit status."""
    try:
        folder = report.new_folder(common.out / recipe.name)
        jobs = []
        for label, chosen in variants.items():
            for seed in range(common.seed, common.seed + common.seeds):
                place = _new_place(folder, label, seed)
                own = dataclasses.replace(common, seed=seed)
                report.write(place / "report.json", report.blank(recipe, chosen, own))
                jobs.append(Job(label, seed, place.relative_to(folder).as_posix()))
        _write(folder, recipe, jobs)
        return _work(recipe, folder, jobs, common)
    except OSError as error:  # a full disk, a folder that cannot be written to
        print(f"{recipe.name}: {error}", file=sys.stderr)
        return 1


def resume(recipe: Recipe, folder: Path, common: Common) -> int:
    """Go on with the study in a folder: what is finished is not run again."""
    try:
        content = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        if content["version"] != VERSION or content["recipe"] != recipe.name:
            options.refuse(recipe, f"--resume must be a study of {recipe.name}. Received: {folder}")
        jobs = [Job(str(job["label"]), int(job["seed"]), str(job["folder"])) for job in content["jobs"]]
        for job in jobs:
            if Path(job.folder).is_absolute() or ".." in Path(job.folder).parts:
                raise ValueError(f"{job.folder} is not in it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        text = "--resume must be the folder of a study, with its study.json"
        options.refuse(recipe, f"{text}. Received: {folder} ({error!r:.200})")
    return _work(recipe, folder, jobs, common)


def _work(recipe: Recipe, folder: Path, jobs: Sequence[Job], common: Common) -> int:
    """Run what is not finished; then show the table, draw the figure, and return the exit status."""
    waiting = [job for job in jobs if report.read(folder / job.folder)["status"] != "finished"]
    number = min(common.jobs or _default_jobs(), max(1, len(waiting)))
    progress = Progress(len(jobs), len(jobs) - len(waiting), number)
    interrupted = False
    with _Processes(recipe, folder) as processes, _executor(number) as executor:
        futures = {executor.submit(processes.run, job): job for job in waiting}
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                progress.show(futures[future].title, report.read(folder / futures[future].folder))
        except KeyboardInterrupt:
            interrupted = True
            executor.shutdown(wait=False, cancel_futures=True)
            processes.interrupt()
    progress.end()
    return _conclude(recipe, folder, jobs, interrupted)


class _Processes:
    """The runs of a study as processes on this machine; those that are left at the end are killed."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.running: set[subprocess.Popen[bytes]] = set()
        self.ended = False
        self.lock = threading.Lock()  # no process may begin after all have been told to end

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True
        with self.lock:
            for process in self.running:
                process.kill()

    def interrupt(self) -> None:
        """Tell all of them to end, as Ctrl-C would."""
        self.ended = True
        with self.lock:
            for process in self.running:
                process.send_signal(signal.SIGINT)

    def run(self, job: Job) -> None:
        """Run a job to its end, and again, from its checkpoint, if something else kills it."""
        place = self.folder / job.folder
        for _ in range(TRIES):
            with (place / "output.txt").open("ab") as output:
                with self.lock:
                    if self.ended:
                        return
                    process = self._start(place, output)
                    self.running.add(process)
                status = process.wait()
                self.running.discard(process)
            content = report.read(place)
            if content["status"] not in ("waiting", "running"):
                return
        if not self.ended:
            error = f"it ended {TRIES} times before its end, with status {status}"
            report.write(place / "report.json", content | {"status": "failed", "error": error})

    def _start(self, place: Path, output: Any) -> subprocess.Popen[bytes]:
        # The code of this process, wherever else there is some; a session of its own: Ctrl-C shall come once.
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        return subprocess.Popen(
            [sys.executable, *self.recipe.start, "--resume", str(place)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,
        )


class Progress:
    """How far a study is: a line that changes on a terminal, a line a run in a file.

    Args:
        total: Number of runs.
        done: Those that were finished before.
        workers: Those that run at once.
    """

    def __init__(self, total: int, done: int, workers: int) -> None:
        self.total, self.before, self.done, self.workers = total, done, done, workers
        self.failed = 0
        self.begun = time.perf_counter()
        self.terminal = sys.stdout.isatty()
        if done:
            print(f"{done} of {total} runs were finished before.")
        self._line("")

    def show(self, title: str, content: Mapping[str, Any]) -> None:
        """Tell of a run that has ended."""
        self.done += 1
        failed = content["status"] != "finished"
        self.failed += failed
        scores = results.summary(content["metrics"])
        text = f"{title}: {content['error'] or content['status'] if failed else scores}"
        if self.terminal:
            self._line(text)
        else:
            print(f"[{self.done}/{self.total}] {content['seconds']:.0f} s, {text}", flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self.terminal:
            print(flush=True)

    def _line(self, text: str) -> None:
        if self.terminal:
            new, left = self.done - self.before, self.total - self.done
            seconds = (time.perf_counter() - self.begun) / new * left if new else 0
            parts = [f"[{self.done}/{self.total}] {min(self.workers, left)} running", f"{self.failed} failed"]
            parts += [f"about {datetime.timedelta(seconds=round(seconds))} left"] if new else []
            line = f"{', '.join(parts)}. {text}"
            print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)


def _conclude(recipe: Recipe, folder: Path, jobs: Sequence[Job], interrupted: bool) -> int:
    """Write and show what came out."""
    reports = [report.read(folder / job.folder) for job in jobs]
    _write(folder, recipe, jobs)
    finished = [
        results.Result(job.label, job.seed, content["metrics"], folder / job.folder)
        for job, content in zip(jobs, reports, strict=True)
        if content["status"] == "finished"
    ]
    if finished:
        judged = all(content["verdict"] != "not judged" for content in reports if content["metrics"])
        print("", results.table(finished), sep="\n")
        report.save_figure(
            folder / "study.png", results.draw(finished, recipe.name, recipe.expected if judged else {})
        )
    failed = [
        (job, content) for job, content in zip(jobs, reports, strict=True) if content["status"] == "failed"
    ]
    for job, content in failed:
        print(f"{job.title} failed: {content['error']} ({folder / job.folder / 'output.txt'})")
    outside = sum(content["verdict"] == "outside" for content in reports)
    if outside:
        print(f"{outside} of {len(finished)} runs landed outside the expected ranges.")
    if len(finished) < len(jobs):
        word = "Interrupted: " if interrupted else ""
        print(
            f"{word}{len(finished)} of {len(jobs)} runs are done. {recipe.typed} --resume {folder} goes on."
        )
    print(f"Results: {folder}")
    return 130 if interrupted else int(bool(outside or failed))


def _write(folder: Path, recipe: Recipe, jobs: Sequence[Job]) -> None:
    """Write study.json: each run's place, and what its report says so far."""
    kept = ("status", "error", "verdict", "seconds", "metrics")
    entries = []
    for job in jobs:
        content = report.read(folder / job.folder)
        entries.append(dataclasses.asdict(job) | {key: content[key] for key in kept})
    report.write(folder / "study.json", {"version": VERSION, "recipe": recipe.name, "jobs": entries})


def _new_place(folder: Path, label: str, seed: int) -> Path:
    """Make the folder of a run, named for what was varied and for its seed, in plain characters."""
    plain = re.sub(r"[^\w=.,+-]", "_", label.replace(", ", ","))
    for number in itertools.count(1):
        place = folder / (plain if number == 1 else f"{plain}_{number}") / f"seed={seed}"
        with contextlib.suppress(FileExistsError):  # another value with the same plain name
            place.mkdir(parents=True)
            return place
    raise AssertionError("itertools.count has no end")


def _executor(number: int) -> concurrent.futures.Executor:
    """Return what runs so many jobs at once, each on its share of the cores."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    shares = iter([cores[i::number] or cores[i % max(1, len(cores)) :][:1] for i in range(number)])

    def pin() -> None:
        if cores:
            os.sched_setaffinity(0, next(shares))  # of this thread, and of the processes that it starts

    return concurrent.futures.ThreadPoolExecutor(number, initializer=pin)


def _default_jobs() -> int:
    """Return how many runs the cores and the free memory allow at once; on a GPU, one."""
    if any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/dxg")):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
        free = int(found[1]) * 1024 if found else free
    except (AttributeError, ValueError, OSError):  # not Linux
        return cores
    return max(1, min(cores, free // JOB_BYTES))
