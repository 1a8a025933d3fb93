"""The types of the toolkit as a user's type checker sees them, from an installation and in strict mode."""

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

SEEN = {  # what a user writes, and how the type that mypy reveals begins
    "toolkit.fit": "def (model: Any, x: Any",
    "toolkit.kfold(10, 2)": "list[tuple[numpy.ndarray[",
    "toolkit.Standardizer.fit([[1.0], [2.0]])": "toolkit.scaling.Standardizer",
    "toolkit.Data().imdb()": "toolkit.data.",
    "toolkit.head([0, 1]).loss": "str",
    "toolkit.plot_folds([])": "matplotlib.axes._axes.Axes",
    "toolkit.load": "def (path: str | pathlib.Path",
    "toolkit.cross_validate": "def (build_model: ",
}


@pytest.fixture(scope="module")
def revealed(tmp_path_factory):
    """Return what mypy says to a user, in whose site-packages the toolkit stands."""
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "venv", symlinks=True)
    (packages,) = (folder / "venv").rglob("site-packages")
    (packages / "toolkit.pth").write_text(f"{ROOT}\n{Path(np.__file__).parents[1]}\n")
    lines = ["import toolkit", *(f"reveal_type({code})" for code in SEEN)]
    (folder / "user.py").write_text("\n".join(lines) + "\n")
    cache = (
        ROOT / ".mypy_cache" / "user"
    )  # kept: the first run takes six seconds, those after it half a second
    python = folder / "venv" / "bin" / "python"
    options = ["--strict", "--python-executable", str(python), "--cache-dir", str(cache), "--config-file="]
    command = [sys.executable, "-m", "mypy", *options, "user.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


def test_the_toolkit_is_typed_and_its_names_are_public(revealed):
    assert "error" not in revealed


@pytest.mark.parametrize("code", SEEN)
def test_a_user_sees_the_type(code, revealed):
    line = list(SEEN).index(code) + 2
    assert f'user.py:{line}: note: Revealed type is "{SEEN[code]}' in revealed
