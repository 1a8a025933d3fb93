"""Recipes as commands: what happens before TensorFlow is there, and when nobody reads any more."""

import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from run.guess import COMMAND, FAKES, LESSON, finish


def command(*args, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", *args], capture_output=True, text=True, cwd=ROOT, check=False, **kwargs
    )


def read_until(terminal, end):
    said = ""
    while not said.endswith(end):
        said += os.read(terminal, 1000).decode()
    return said


@pytest.fixture
def without_tensorflow(tmp_path):
    """An environment in which Keras and TensorFlow cannot be imported."""
    for name in ("keras", "tensorflow"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('it was imported')")
    return os.environ | {"PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("name", ["recipes.imdb", "recipes imdb"])
def test_help_names_the_command_that_was_typed_and_waits_for_no_tensorflow(name, without_tensorflow):
    result = command(*name.split(), "--help", env=without_tensorflow)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"usage: python -m {name} [-h]")
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_help_by_the_script_names_the_script(without_tensorflow):
    result = command(
        "recipes", "imdb", "--help", env=without_tensorflow | {"RECIPES_COMMAND": "scripts/recipe"}
    )
    assert result.stdout.startswith("usage: scripts/recipe imdb [-h]")
    assert "RECIPES_COMMAND" in (ROOT / "scripts/recipe").read_text()


@pytest.mark.parametrize("args", [("--epoch", "3"), ("--set", "unit=3"), ("--data-dir", "/no/such/folder")])
def test_a_mistake_in_the_options_waits_for_no_tensorflow(args, without_tensorflow):
    result = command("recipes.imdb", *args, env=without_tensorflow)
    assert result.returncode == 2
    assert args[-1].split("=")[0] in result.stderr or "--epochs" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_name_in_capitals_is_found():
    result = command("recipes", "IMDB")
    assert (result.returncode, "Did you mean imdb?" in result.stderr) == (2, True)


def test_a_terminal_is_told_at_once_and_ctrl_c_ends_the_start_without_a_traceback(tmp_path):
    (tmp_path / "keras.py").write_text("import time\ntime.sleep(60)")
    terminal, end = pty.openpty()
    started = [sys.executable, "-m", "recipes.losses"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(started, cwd=ROOT, env=environment, stdout=end, stderr=end) as process:
        os.close(end)
        assert read_until(terminal, "\n") == "Starting TensorFlow ...\r\n"
        time.sleep(0.3)  # it imports
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    assert read_until(terminal, ".\r\n") == "\r\nInterrupted.\r\n"
    os.close(terminal)


@pytest.mark.parametrize("words", ["recipes.losses", "recipes losses"])
def test_ctrl_c_ends_the_very_start_without_a_traceback(words, tmp_path):
    """While what reads the options is imported."""
    (tmp_path / "tyro.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)")
    started = [sys.executable, "-m", *words.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(started, cwd=ROOT, env=environment, **pipes) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20) == ("", "")
        assert process.returncode == -signal.SIGINT  # which shells give as 130


@pytest.mark.parametrize("study", [True, False])
def test_ctrl_c_interrupts_a_study_and_an_import_changes_nothing(study):
    begun = """
from toolkit.run import begin, study
study.run = lambda *_: print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
signal.signal(signal.SIGINT, signal.SIG_DFL)
begin(pathlib.Path("recipes/losses.py"), ["--seeds", "2"])
"""
    imported = "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    code = f"import pathlib, signal, recipes\n{begun if study else imported}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr


def test_a_file_is_not_told_of_the_start(tmp_path):
    (tmp_path / "keras.py").write_text("raise SystemExit(0)")
    result = command("recipes.losses", env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_garbage_waits_while_libraries_are_imported_and_no_longer(tmp_path):
    for name, text in (FAKES | {"guess.py": LESSON + COMMAND}).items():
        (tmp_path / name).write_text(text)
    looks = "import gc; print('collects:', gc.isenabled(), gc.get_freeze_count() > 0)"
    start = f"""
import pathlib, runpy, sys
from toolkit.run import begin
begin(pathlib.Path("guess.py"), sys.argv[1:])
{looks}
runpy.run_path("guess.py", run_name="__main__")
"""
    args = [sys.executable, "-c", start, "--data", "sample", "--out", tmp_path, "--note", looks]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(args, cwd=tmp_path, env=environment, capture_output=True, text=True)
    said = [line for line in result.stdout.splitlines() if line.startswith("collects:")]
    assert said == ["collects: False False", "collects: True True"], result.stderr


def test_a_reader_that_leaves_ends_the_run_without_a_complaint(tmp_path):
    """As `| head -1` does."""
    for name, text in (FAKES | {"guess.py": LESSON + COMMAND}).items():
        (tmp_path / name).write_text(text)
    note = "import time\nfor n in range(10000):\n    print(n, flush=True)\n    time.sleep(0.001)"
    args = [sys.executable, tmp_path / "guess.py", "--data", "sample", "--out", tmp_path, "--note", note]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(args, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141
    (path,) = tmp_path.glob("guess/*/report.json")
    assert json.loads(path.read_text())["status"] == "interrupted"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("recipes", 0),
        ("recipes --table", 0),
        ("recipes --help", 0),
        ("recipes imdb --help", 141),
        ("recipes.imdb --help", 141),
    ],
)
def test_what_nobody_reads_is_no_error(words, status):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", *words.split()]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    os.close(writing)
    assert (result.returncode, result.stderr) == (status, b"")


FLAGS = 'print("flags:", os.environ.get("TF_XLA_FLAGS", ""))'


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """The folder of a user who has chosen nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("RECIPES_CACHE")
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    return tmp_path / "caches/keras-study-recipes/xla"


def test_what_is_compiled_is_kept_by_default(counting, caches):
    status, out = finish(counting("--note", FLAGS))
    assert status == 0
    assert f'directory="{caches}/process-' in out
    assert list(caches.iterdir()) == []


def test_the_runs_of_a_study_share_it(counting, caches, tmp_path):
    assert finish(counting("--seeds", "2", "--note", FLAGS))[0] == 0
    said = [path.read_text() for path in tmp_path.rglob("output.txt")]
    assert [f'directory="{caches}/process-' in text for text in said] == [True, True]


def test_a_folder_for_it_can_be_named(counting, caches, tmp_path, monkeypatch):
    monkeypatch.setenv("RECIPES_CACHE", str(tmp_path / "own"))
    assert f'directory="{tmp_path}/own/process-' in finish(counting("--note", FLAGS))[1]


@pytest.mark.parametrize("args", [("--no-cache",), (), ("--no-cache", "--seeds", "2")])
def test_it_can_be_turned_off(args, counting, caches, tmp_path, monkeypatch):
    if not args:
        monkeypatch.setenv("RECIPES_CACHE", "off")
    status, out = finish(counting("--note", FLAGS, *args))
    said = [out] if len(args) < 2 else [path.read_text() for path in tmp_path.rglob("output.txt")]
    assert status == 0
    assert ["flags: \n" in text for text in said] == [True] * (2 if len(args) > 1 else 1)
    assert not caches.exists()


def test_a_run_says_in_a_line_that_it_is_refused_and_goes_on(counting, caches):
    caches.mkdir(parents=True)
    caches.chmod(0o755)
    status, out = finish(counting("--note", FLAGS))
    assert status == 0
    assert out.startswith(f"No compile cache: {caches} must have mode 0700. Received: 0755\nflags: \n")
