"""What the tests of the command line share: a recipe that is run in this process, and its folders."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from run.guess import COMMAND, COUNTING, FAKES, LESSON

from toolkit.run import cli


@pytest.fixture
def run(tmp_path, capsys):
    """Return a function that runs the lesson and gives status, output, errors, and the new report."""

    def run(*args, lesson=LESSON, data=("--data", "sample")):
        path = tmp_path / "guess.py"
        path.write_text(lesson + COMMAND)
        spec = importlib.util.spec_from_file_location("guess", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        before = set(tmp_path.glob("runs/guess/*"))
        with pytest.raises(SystemExit) as exit_:
            cli(module.main, ["--out", str(tmp_path / "runs"), *data, *args])
        captured = capsys.readouterr()
        new = set(tmp_path.glob("runs/guess/*")) - before
        paths = [folder / "report.json" for folder in new if (folder / "report.json").is_file()]
        report = json.loads(paths[0].read_text()) if paths else None
        return exit_.value.code, captured.out, captured.err, report

    return run


@pytest.fixture
def folders(tmp_path):
    """Return a function that gives the new folders of runs."""
    seen = set()

    def folders():
        new = set(tmp_path.glob("runs/guess/*")) - seen
        seen.update(new)
        return sorted(new)

    return folders


@pytest.fixture
def counting(tmp_path):
    """A recipe whose runs take a moment, and write down that they begin and end."""
    for name, text in (FAKES | {"guess.py": COUNTING + COMMAND}).items():
        (tmp_path / name).write_text(text)

    def start(*args, **kwargs):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "LOG": str(tmp_path / "log")}
        words = [sys.executable, str(tmp_path / "guess.py"), "--out", str(tmp_path / "runs"), *args]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | kwargs
        return subprocess.Popen(words, env=environment, **pipes)

    return start
