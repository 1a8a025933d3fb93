"""A run's folder and report.json, made, written and read; what it prints of data, scores and verdict."""

import datetime
import importlib.metadata
import itertools
import json
import math
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from toolkit import _files
from toolkit.data import Dataset
from toolkit.run.options import KEPT, Common
from toolkit.run.recipe import Recipe

BROKEN_PIPE = 128 + 13  # the exit status, as shells give it, when whoever read our output has left

Range = tuple[float, float]
Status = Literal["waiting", "running", "finished", "interrupted", "failed"]
Verdict = Literal["inside", "outside", "not judged"]


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the report of the run in a folder."""
    write_json(folder / "report.json", content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON; the file appears whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=2, default=str) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, which appears whole or not at all."""
    with _files.whole(path) as unfinished:
        unfinished.write_bytes(content)


def read(folder: Path) -> dict[str, Any]:
    """Return the report of the run in a folder; one that is lost or damaged as a report that says so."""
    lost = {"status": "failed", "error": "its report.json is lost", "verdict": "not judged"}
    try:
        content = checked(json.loads(_files.read_own(folder / "report.json")))
        return lost | {"seconds": 0.0, "metrics": {}} | content
    except (OSError, ValueError, RecursionError):
        return lost | {"seconds": 0.0, "metrics": {}}


def checked(content: Any) -> dict[str, Any]:
    """Return a report that was read, whose entries may be missing, but are of the types that we write.

    Raises:
        ValueError: If one is not.
    """
    if not isinstance(content, dict):
        raise ValueError("a report must be an object")
    metrics, data = content.get("metrics", {}), content.get("data", [])
    right = {
        "status": content.get("status", "failed") in get_args(Status),
        "verdict": content.get("verdict", "not judged") in get_args(Verdict),
        "error": isinstance(content.get("error", ""), str),
        "seconds": _is_number(content.get("seconds", 0)) and math.isfinite(content.get("seconds", 0)),
        "metrics": isinstance(metrics, dict) and all(map(_is_number, metrics.values())),
        "data": isinstance(data, list) and all(map(_is_origin, data)),
    }
    if wrong := [key for key, is_right in right.items() if not is_right]:
        raise ValueError(f"{', '.join(wrong)} cannot be what a run has written")
    return content


def _is_number(value: Any) -> bool:
    """Tell a number that a float can hold; NaN is one: a training that diverges may score it."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 1e300)


def _is_origin(value: Any) -> bool:
    """Tell an entry of "data"."""
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("name", "source"))


def save_figure(path: Path, figure: Any) -> None:
    """Draw a figure into a file, which appears whole or not at all."""
    with _files.whole(path) as unfinished:
        figure.savefig(unfinished)


def number(value: float) -> str:
    """Write a score with four figures; a tiny one with its power of ten.

    >>> number(0.88123), number(12.3456), number(48210.7), number(0.0), number(2e-5)
    ('0.8812', '12.35', '48211', '0', '2e-05')
    """
    if 0 < abs(value) < 0.001:
        return f"{value:.0e}"
    return f"{value:.4f}" if 0 < abs(value) < 1 else f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def announce(dataset: Dataset, seed: int, device: str) -> None:
    """Say what is trained on."""
    rows = f"{len(dataset.x_train):,} training rows, {len(dataset.x_test):,} test rows"
    if dataset.source == "sample":
        print(f"SAMPLE DATA for {dataset.name} ({rows}); nothing will be judged: {dataset.reason}.")
    else:
        print(f"Real data: {dataset.name} ({rows}). Seed {seed}. {device}.")


def outside(metrics: Mapping[str, float], expected: Mapping[str, Range]) -> list[str]:
    """Return the scores that are missing or not in their range.

    >>> outside({"test_mae": 2.0}, {"test_mae": (1, 3), "cv_mae": (1, 3)})
    ['cv_mae']
    """
    return [
        name
        for name, (low, high) in expected.items()
        if name not in metrics or not low <= metrics[name] <= high
    ]


def conclude(report: Mapping[str, Any], default: bool, folder: Path, go_on: str) -> None:
    """Say how a run ended.

    Args:
        report: What report.json holds.
        default: Whether the options were the default ones.
        folder: Where the results are.
        go_on: The command that goes on with a run that was cut short.
    """
    expected, metrics = report["expected"], report["metrics"]
    if report["status"] == "failed":
        print(f"{report['recipe']}: {report['error']}", file=sys.stderr)
    elif report["status"] == "interrupted":
        print(f"\nInterrupted. The report holds what was reached; {go_on} goes on.")
    elif report["verdict"] != "not judged":
        print(f"Verdict: {report['verdict']} the expected range{'s' * (len(expected) > 1)}.")
        for name in outside(metrics, expected):
            low, high = expected[name]
            print(f"  {name} is {metrics.get(name)}; expected {low} to {high}")
    elif not expected:
        print("Verdict: not judged, because the recipe names no ranges.")
    elif not default:
        print("Verdict: not judged, because the ranges hold for the default options.")
    print(f"{report['seconds']:.0f} s. Results: {folder}")
    tell_samples(report["data"])


def tell_samples(data: Iterable[Mapping[str, Any]]) -> None:
    """Say for which data sets the embedded sample was used, if any."""
    samples = dict.fromkeys(used["name"] for used in data if used["source"] == "sample")
    if samples:
        print(f"SAMPLE DATA was used for {', '.join(samples)}: these scores say nothing about the real data.")


def versions() -> dict[str, str]:
    """Return the versions of Python and of what numbers depend on."""
    packages = ("keras", "tensorflow", "numpy", "scikit-learn")
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version()} | found


def blank(recipe: Recipe, options: Mapping[str, Any], common: Common) -> dict[str, Any]:
    """Return the report of a run that has not begun."""
    return {
        "recipe": recipe.name,
        "status": "waiting",
        "error": "",
        "options": options,
        "seed": common.seed,
        "command": {key: getattr(common, key) for key in KEPT},
        "metrics": {},
        "expected": recipe.expected,
        "verdict": "not judged",
        "data": [],
        "seconds": 0.0,
    }


def new_folder(parent: Path) -> Path:
    """Make a folder named for the time; a number tells apart the runs of one second."""
    stamp = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}"
    for number in itertools.count(1):
        folder = parent.expanduser() / (stamp if number == 1 else f"{stamp}_{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("itertools.count has no end")
