"""Marks and fixtures that all tests share."""

import concurrent.futures
import contextlib
import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("shared machine", deadline=None)  # a first call may import for seconds
hypothesis.settings.load_profile("shared machine")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# A shell starts a background job with Ctrl-C ignored, and every process that a test starts would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent


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
    # The recipes' regressions come last, because they are computed beside the other tests from the start.
    items.sort(key=is_regression)


def is_regression(item: pytest.Item) -> bool:
    """Tell whether a test waits for a recipe's run at default options on the real data."""
    return "regressions" in inspect.signature(getattr(item, "function", is_regression)).parameters


@pytest.fixture(scope="session", autouse=True)
def regressions(request, tmp_path_factory):
    """Run recipes on the real data, one after another, beside the other tests: most of these use one core.

    Gives, by the name of the recipe, a future of the finished process and its folder of results.
    """
    running: list[subprocess.Popen[str]] = []
    environment = dict(os.environ)  # as it is now: tests change it for themselves

    def run(name: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        folder = tmp_path_factory.mktemp(name)
        command = [sys.executable, "-m", f"recipes.{name}", "--out", str(folder), "--data", "real"]
        # Through a shell: a process counts the peak memory of the one that it was forked from as its own.
        shell = ["sh", "-c", '"$@"; exit $?', "sh", *command]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(shell, cwd=ROOT, env=environment, start_new_session=True, **pipes) as process:
            running[:] = [process]
            out, err = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out, err), folder

    wanted = [
        item.callspec.params["name"]
        for item in request.session.items
        if is_regression(item) and not item.get_closest_marker("skip")
    ]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield {name: pool.submit(run, name) for name in wanted}
        pool.shutdown(wait=False, cancel_futures=True)
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


FAULTS: dict[str, list[int]] = {}


def record_fault(fault: str, tried: int, harmed: int) -> None:
    """Add a row to the table that `pytest tests/test_faults*` prints at its end."""
    row = FAULTS.setdefault(fault, [0, 0])
    row[0] += tried
    row[1] += harmed


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    oracle = sys.modules.get("training.oracle")
    if oracle is not None and oracle.OUTCOMES:
        terminalreporter.section("model.fit and toolkit.fit")
        for line in oracle.table():
            terminalreporter.write_line(line)
    if FAULTS:
        terminalreporter.section("faults")
        for fault, (tried, harmed) in FAULTS.items():
            terminalreporter.write_line(f"{fault:<58} tried {tried:>5}   harmed {harmed:>3}")
