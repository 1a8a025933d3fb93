"""Marks and fixtures that all tests share."""

import os
import signal
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
    from toolkit.data import _FILES

    home = os.environ.get("KERAS_HOME")
    folders = [Path(folder, "datasets").expanduser() for folder in (home, "~/.keras") if folder]
    files = [file for files in _FILES.values() for file in files]
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


FAULTS: list[tuple[str, str, str]] = []


@pytest.fixture
def fault_table():
    """Take what a fault test has tried and what came of it, for the table at the end of the report."""
    return lambda fault, tried, result: FAULTS.append((fault, tried, result))


def pytest_terminal_summary(terminalreporter):
    """Print the table of the faults."""
    if FAULTS:
        terminalreporter.section("faults")
    for fault, tried, result in FAULTS:
        terminalreporter.line(f"{fault:<44} {tried:<22} {result}")
