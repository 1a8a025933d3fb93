"""Marks and fixtures that all tests share."""

import gc
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from tables import TABLES

hypothesis.settings.register_profile("shared machine", deadline=None)  # a first call may import for seconds
hypothesis.settings.load_profile("shared machine")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("RECIPES_CACHE", "off")  # the user's own
# A shell starts a background job with Ctrl-C ignored, and every process that a test starts would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
gc.set_threshold(10_000, 10, 10)  # each full collection walks over all that is left of earlier models

ROOT = Path(__file__).parent.parent


def one_in(count: int, cases: Iterable[str]) -> list[Any]:
    """Leave all cases but every `count`-th one to the slow tests."""
    return [pytest.param(case, marks=[pytest.mark.slow] * (i % count > 0)) for i, case in enumerate(cases)]


def missing_real_data() -> list[str]:
    """Return the data files that are in none of the usual folders."""
    from toolkit.data.files import FILES

    home = os.environ.get("KERAS_HOME")
    folders = [Path(folder, "datasets").expanduser() for folder in (home, "~/.keras") if folder]
    files = [file for files in FILES.values() for file in files]
    return [file for file in files if not any((folder / file).is_file() for folder in folders)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run here, and say why; where CI lends the data, a missing file is a failure."""
    missing = missing_real_data()
    if missing and not os.environ.get("RECIPES_REQUIRE_REAL_DATA"):
        for item in items:
            if item.get_closest_marker("real"):
                item.add_marker(
                    pytest.mark.skip(reason=f"no real data (scripts/download): {missing[0]}, ...")
                )
    if any(item.get_closest_marker("gpu") for item in items):
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            for item in items:
                if item.get_closest_marker("gpu"):
                    item.add_marker(pytest.mark.skip(reason="TensorFlow sees no GPU"))
    # The longest come first, so that no worker ends long after the others.
    long = re.compile("random_models|killed_runs|lands_in_its_range")
    items.sort(key=lambda item: not long.search(item.name))


@pytest.fixture
def regression(tmp_path):
    """Give a function that runs a recipe at default options on the real data: the process, and its folder."""

    def run(name: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        command = [sys.executable, "-m", f"recipes.{name}", "--out", str(tmp_path), "--data", "real"]
        # Through a shell: a process counts the peak memory of the one that it was forked from as its own.
        shell = ["sh", "-c", '"$@"; exit $?', "sh", *command]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(shell, cwd=ROOT, start_new_session=True, **pipes) as process:
            try:
                out, err = process.communicate()
            except BaseException:  # Ctrl-C comes to the tests alone
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err), tmp_path

    return run


TOTALS: dict[str, dict[str, Counter[str]]] = {title: {} for title in TABLES}  # from whichever process


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if call.when == "teardown":
        for title, table in TABLES.items():
            report.user_properties += [(title, [row, dict(counts)]) for row, counts in table.items()]
            table.clear()
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for title, filled in report.user_properties:
        if title in TOTALS and report.when == "teardown":
            row, counts = filled
            TOTALS[title].setdefault(row, Counter()).update(counts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for title, table in TOTALS.items():
        if table:
            terminalreporter.section(title)
            rows = {**table, "together": sum(table.values(), Counter())}
            columns = dict.fromkeys(name for counts in table.values() for name in counts)
            for row, counts in rows.items():
                cells = "".join(f"   {column} {counts[column]:>5}" for column in columns)
                terminalreporter.write_line(f"{row:<58}{cells}")
