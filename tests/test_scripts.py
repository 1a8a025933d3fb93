"""The scripts, without a network: a stand-in for Python says what it was asked to do."""

import json
import os
import runpy
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPTS = ("recipe", "test", "bench", "calibrate", "download")


@pytest.fixture
def tree(tmp_path):
    """Return a copy of what the scripts need, and a folder with a Python that only logs its arguments."""
    shutil.copytree(ROOT / "scripts", tmp_path / "tree/scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / "tree" / name)
    fake = tmp_path / "bin" / "python3"
    fake.parent.mkdir()
    fake.write_text(
        """#!/bin/sh
echo "$0 $*" >>"$LOG"
case "$*" in
  *version_info*) exit "${WRONG_VERSION:-0}" ;;
  *"-m venv"*) for last; do :; done; mkdir -p "$last/bin" && cp "$0" "$last/bin/python" ;;
  *"-m pip"*) echo "Collecting numpy"; exit "${PIP_FAILS:-0}" ;;
esac
"""
    )
    fake.chmod(0o755)
    return tmp_path


def run(tree, script, *args, **variables):
    """Run a script; return its result and the calls of Python that it made."""
    log = tree / "log"
    log.unlink(missing_ok=True)
    env = {"PATH": f"{tree / 'bin'}:/usr/bin:/bin", "LOG": str(log), **variables}
    # The machine's own Python must not be found: only the tools that the scripts need.
    tools = tree / "tools"
    if not tools.exists():
        tools.mkdir()
        for tool in (
            "cat",
            "cksum",
            "cp",
            "cut",
            "dirname",
            "du",
            "grep",
            "mkdir",
            "mv",
            "rm",
            "sh",
            "sleep",
            "tail",
        ):
            (tools / tool).symlink_to(shutil.which(tool))
    env["PATH"] = f"{tree / 'bin'}:{tools}"
    result = subprocess.run(
        [tree / "tree/scripts" / script, *args], env=env, capture_output=True, text=True, cwd=tree, timeout=60
    )
    return result, log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_sets_itself_up_once_and_then_starts_at_once(tree, script):
    result, calls = run(tree, script, "--flag", "two words")
    assert result.returncode == 0, result.stderr
    assert "Setting up .venv" in result.stderr
    assert any("-m venv --clear" in call for call in calls)
    assert any("-m pip install" in call and "constraints.txt" in call for call in calls)
    assert "--flag two words" in calls[-1]
    result, calls = run(tree, script)
    assert len(calls) == 1
    assert result.stderr == ""


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_change_of_what_is_wanted_is_noticed(tree, name):
    run(tree, "recipe")
    with (tree / "tree" / name).open("a") as file:
        file.write("# changed\n")
    result, calls = run(tree, "recipe")
    assert "has changed" in result.stderr
    assert any("-m pip install" in call for call in calls)
    assert not any("-m venv" in call for call in calls)
    assert len(run(tree, "recipe")[1]) == 1


def test_an_installation_that_failed_heals_itself(tree):
    result, calls = run(tree, "recipe", PIP_FAILS="1")
    assert result.returncode == 1
    assert "The installation failed" in result.stderr
    assert not any("-m recipes" in call for call in calls)
    result, calls = run(tree, "recipe")
    assert result.returncode == 0
    assert any("-m venv --clear" in call for call in calls)
    assert "-m recipes" in calls[-1]


def test_the_python_to_start_from_can_be_chosen(tree):
    chosen = tree / "chosen" / "python3.12"
    chosen.parent.mkdir()
    shutil.copy(tree / "bin/python3", chosen)
    calls = run(tree, "recipe", BASE_PYTHON=str(chosen))[1]
    assert all(call.startswith(f"{chosen} ") for call in calls if "-m venv" in call)
    assert any("-m venv" in call for call in calls)


def test_a_lock_that_a_killed_set_up_left_does_not_count(tree):
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tree / "tree/.venv.lock").mkdir()
    (tree / "tree/.venv.lock/pid").write_text(str(dead.pid))
    assert run(tree, "recipe")[0].returncode == 0
    assert not (tree / "tree/.venv.lock").exists()


def test_a_machine_without_a_fitting_python_is_told_so(tree):
    result, _ = run(tree, "recipe", WRONG_VERSION="1")
    assert result.returncode == 1
    assert "No Python 3.11, 3.12 or 3.13" in result.stderr


def test_the_benchmark_prints_a_table_and_writes_json(tmp_path):
    command = [sys.executable, ROOT / "scripts/bench.py", "--only", "list", "--runs", "2"]
    result = subprocess.run(
        [*command, "--json", tmp_path / "runs.json"], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("| list |")
    assert len({line.count("|") for line in result.stdout.splitlines()[2:]}) == 1
    runs = json.loads((tmp_path / "runs.json").read_text())
    assert [len(side) for side in runs["list"].values()] == [2, 2]


@pytest.mark.parametrize(
    ("goal", "text", "reached"),
    [
        ({}, "", ""),
        ({"times": 4}, "4 times", "yes"),
        ({"times": 4.5}, "4.5 times", "no"),
        ({"times": 4, "seconds": 0.2}, "4 times, 0.2 s", "no"),
        ({"times": 4, "megabytes": 700}, "4 times, 700 MB", "yes"),
        ({"megabytes": 600}, "600 MB", "no"),
        ({"limit": 8}, "limit 8", "50%"),
    ],
)
def test_a_goal_is_reached_where_all_of_it_is(goal, text, reached):
    found = runpy.run_path(str(ROOT / "scripts/bench.py"))["Goal"](**goal)
    assert (str(found), found.reached(times=4.0, seconds=0.3, megabytes=650)) == (text, reached)


@pytest.mark.parametrize(("script", "args"), [("bench", ["--only", "nothing"]), ("calibrate", ["nothing"])])
def test_an_unknown_name_is_refused_with_those_there_are(script, args):
    result = subprocess.run(
        [sys.executable, ROOT / f"scripts/{script}.py", *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 2
    assert "imdb" in result.stderr
