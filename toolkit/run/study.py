"""Many runs of a recipe: each seed with each value of an option, here or on a cluster; and their summary.

A run of a study is a command that a person could type, so its scores are those of that run alone. Its folder
holds its report before it begins: what is not finished goes on with `--resume`, and so does the study.
"""

import concurrent.futures
import contextlib
import dataclasses
import datetime
import itertools
import json
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import _files
from toolkit.run import options, processes, report, results
from toolkit.run.options import Common, Options
from toolkit.run.processes import Processes
from toolkit.run.recipe import Recipe

if TYPE_CHECKING:
    from toolkit.run.cluster import Cluster

VERSION = 1  # of study.json
INTERRUPTED = "Interrupted"


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
                report.write(place, report.blank(recipe, chosen, own))
                jobs.append(Job(label, seed, place.relative_to(folder).as_posix()))
        _write(folder, recipe, jobs)
        return _work(recipe, folder, jobs, common)
    except OSError as error:  # a full disk, a folder that cannot be written to
        print(f"{recipe.name}: {error}", file=sys.stderr)
        return 1


def resume(recipe: Recipe, folder: Path, common: Common) -> int:
    """Go on with the study in a folder: what is finished is not run again."""
    try:
        content = json.loads(_files.read_own(folder / "study.json"))
        if content["version"] != VERSION or content["recipe"] != recipe.name:
            options.refuse(recipe, f"--resume must be a study of {recipe.name}. Received: {folder}")
        jobs = [Job(str(job["label"]), int(job["seed"]), str(job["folder"])) for job in content["jobs"]]
        for job in jobs:
            inside = not Path(job.folder).is_absolute() and ".." not in Path(job.folder).parts
            if not (inside and (folder / job.folder).is_dir()):
                raise ValueError(f"{job.folder} is not in it")
        _files.refuse_links(folder)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        text = "--resume must be the folder of a study, with its study.json"
        options.refuse(recipe, f"{text}. Received: {folder} ({error!r:.200})")
    return _work(recipe, folder, jobs, common)


def _work(recipe: Recipe, folder: Path, jobs: Sequence[Job], common: Common) -> int:
    """Run what is not finished; then show the table, draw the figure, and return the exit status."""
    try:
        ended = _run_waiting(recipe, folder, jobs, common)
        return _conclude(recipe, folder, jobs, ended)
    except BrokenPipeError:
        return report.BROKEN_PIPE
    except OSError as error:  # a full disk, no cluster
        print(f"{recipe.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # a second one: what runs has been killed
        return 130


def _run_waiting(recipe: Recipe, folder: Path, jobs: Sequence[Job], common: Common) -> str:
    """Run what is not finished; return why that ended before its end, or ""."""
    waiting = [job for job in jobs if report.read(folder / job.folder)["status"] != "finished"]
    ended = ""
    with _workers(recipe, folder, common, len(waiting)) as workers:
        line = StatusLine(len(jobs), len(jobs) - len(waiting), workers.number)
        futures = {workers.submit(job.folder): job for job in waiting}
        try:
            for future in concurrent.futures.as_completed(futures):
                job = futures.pop(future)  # what it holds is no longer needed
                workers.finish(job.folder, future)
                line.show(job.title, report.read(folder / job.folder))
        except (KeyboardInterrupt, ConnectionError) as error:
            ended = str(error) or INTERRUPTED
            workers.interrupt()
    line.end()
    return ended


def _workers(recipe: Recipe, folder: Path, common: Common, waiting: int) -> "Processes | Cluster":
    """Return what runs the jobs: this machine, or those of a cluster."""
    if common.cluster is None:
        number = min(common.jobs or processes.default_number(), max(1, waiting))
        return Processes(recipe.start, folder, number)
    from toolkit.run.cluster import Cluster  # an extra

    return Cluster(recipe.start, folder, common.cluster)


class StatusLine:
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


def _conclude(recipe: Recipe, folder: Path, jobs: Sequence[Job], ended: str) -> int:
    """Write and show what came out."""
    reports = [report.read(folder / job.folder) for job in jobs]
    _write(folder, recipe, jobs)
    finished = [
        results.Result(job.label, job.seed, content["metrics"], folder / job.folder)
        for job, content in zip(jobs, reports, strict=True)
        if content["status"] == "finished"
    ]
    data = [used for content in reports for used in content.get("data", [])]
    if finished:
        judged = all(content["verdict"] != "not judged" for content in reports if content["metrics"])
        print("", results.table(finished), sep="\n")
        sources = sorted({used["source"] for used in data})
        title = f"{recipe.name} ({' and '.join(sources)} data)" if sources else recipe.name
        figure = results.draw(finished, title, recipe.expected if judged else {})
        report.save_figure(folder / "study.png", figure)
    failed = [
        (job, content) for job, content in zip(jobs, reports, strict=True) if content["status"] == "failed"
    ]
    for job, content in failed:
        print(f"{job.title} failed: {content['error']} ({folder / job.folder / 'output.txt'})")
    outside = sum(content["verdict"] == "outside" for content in reports)
    if outside:
        print(f"{outside} of {len(finished)} runs landed outside the expected ranges.")
    if len(finished) < len(jobs):
        done = f"{ended}{': ' * bool(ended)}{len(finished)} of {len(jobs)} runs are done."
        print(f"{done} {recipe.typed} --resume {folder} goes on.")
    print(f"Results: {folder}")
    report.tell_samples(data)
    return 130 if ended == INTERRUPTED else int(bool(outside or len(finished) < len(jobs)))


def _write(folder: Path, recipe: Recipe, jobs: Sequence[Job]) -> None:
    """Write study.json: each run's place, and what its report says so far."""
    kept = ("status", "error", "verdict", "seconds", "metrics")
    entries = []
    for job in jobs:
        content = report.read(folder / job.folder)
        entries.append(dataclasses.asdict(job) | {key: content[key] for key in kept})
    report.write_json(folder / "study.json", {"version": VERSION, "recipe": recipe.name, "jobs": entries})


def _new_place(folder: Path, label: str, seed: int) -> Path:
    """Make the folder of a run, named for what was varied and for its seed, in plain characters."""
    plain = re.sub(r"[^\w=.,+-]", "_", label.replace(", ", ","))
    for number in itertools.count(1):
        place = folder / (plain if number == 1 else f"{plain}_{number}") / f"seed={seed}"
        with contextlib.suppress(FileExistsError):  # another value with the same plain name
            place.mkdir(parents=True)
            return place
    raise AssertionError("itertools.count has no end")
