import importlib.util
import json
import re
import textwrap

import pytest

from toolkit.run import cli

LESSON = '''
"""Guess the mean price.

Teaches   What a baseline is.
Data      Boston housing.
"""
import numpy as np

EXPECTED = {"test_mae": (1.0, 9.0)}
QUICK = {"epochs": 1}


def main(run, *, epochs: int = 5, note: str = ""):
    """Guess.

    Args:
        epochs: Passes over the rows.
        note: What to print.
    """
    (x, y), (x_test, y_test) = run.data.boston_housing()
    print("epochs", epochs, "draw", np.random.random())
    run.score(baseline_mae=np.abs(y_test - y.mean()).mean())
    if note:
        exec(note)
    run.score(test_mae=5.0)
'''


@pytest.fixture
def run(tmp_path, capsys):
    """Return a function that runs the lesson and gives status, output, errors, and the new report."""

    def run(*args, lesson=LESSON, data=("--data", "sample")):
        path = tmp_path / "guess.py"
        path.write_text(textwrap.dedent(lesson))
        spec = importlib.util.spec_from_file_location("guess", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        before = set(tmp_path.glob("runs/guess/*"))
        with pytest.raises(SystemExit) as exit_:
            cli(module.main, ["--out", str(tmp_path / "runs"), *data, *args])
        captured = capsys.readouterr()
        new = set(tmp_path.glob("runs/guess/*")) - before
        report = json.loads((new.pop() / "report.json").read_text()) if new else None
        return exit_.value.code, captured.out, captured.err, report

    return run


def test_the_report_says_what_was_run_on_what_and_what_came_out(run):
    status, out, _, report = run("--epochs", "3", "--seed", "7")
    assert status == 0
    assert report["recipe"] == "guess"
    assert report["status"] == "finished"
    assert report["options"] == {"epochs": 3, "note": ""}
    assert report["seed"] == 7
    assert set(report["metrics"]) == {"baseline_mae", "test_mae"}
    assert report["expected"] == {"test_mae": [1.0, 9.0]}
    assert report["data"][0]["name"] == "boston_housing"
    assert report["data"][0]["source"] == "sample"
    assert set(report["versions"]) >= {"python", "keras", "tensorflow", "numpy"}
    assert report["seconds"] >= 0
    assert report["device"]
    assert re.search(r"test_mae +5", out)
    assert "expected" not in out  # the range holds for real data


def test_the_sample_is_announced_first_and_last_and_judges_nothing(run):
    status, out, _, report = run(lesson=LESSON.replace("5.0)", "50.0)"))
    assert status == 0
    assert report["verdict"] == "not judged"
    lines = out.strip().splitlines()
    assert "SAMPLE" in lines[0]
    assert "SAMPLE" in lines[-1]
    assert "Verdict" not in out


@pytest.mark.real
def test_default_options_on_real_data_are_judged(run):
    status, out, _, report = run(data=())
    assert (status, report["verdict"]) == (0, "inside")
    assert re.search(r"test_mae +5 +\(expected 1 to 9\)", out)
    assert "Verdict: inside" in out
    status, out, _, report = run(data=(), lesson=LESSON.replace("5.0)", "50.0)"))
    assert (status, report["verdict"]) == (1, "outside")
    assert "test_mae is 50.0; expected 1.0 to 9.0" in out
    status, out, _, report = run(data=(), lesson=LESSON.replace("test_mae=5.0", "other=5.0"))
    assert (status, report["verdict"]) == (1, "outside")
    status, out, _, report = run("--epochs", "6", data=(), lesson=LESSON.replace("5.0)", "50.0)"))
    assert (status, report["verdict"]) == (0, "not judged")
    assert "expected" not in out
    assert report["data"][0]["files"]["boston_housing.npz"].startswith("f553886a")


def test_the_seed_sets_every_generator(run):
    draws = [re.search(r"draw (\S+)", run("--seed", seed)[1]).group(1) for seed in ("1", "1", "2")]
    assert draws[0] == draws[1] != draws[2]


def test_quick_changes_the_defaults_and_a_given_option_wins(run):
    assert run("--quick")[3]["options"]["epochs"] == 1
    assert run("--quick", "--epochs", "4")[3]["options"]["epochs"] == 4


def test_two_runs_in_one_second_get_two_folders(run, tmp_path):
    for _ in range(3):
        run()
    assert len(list(tmp_path.glob("runs/guess/*/report.json"))) == 3


def test_an_interruption_leaves_a_report_of_what_was_reached(run):
    status, out, _, report = run("--note", "raise KeyboardInterrupt")
    assert status == 130
    assert report["status"] == "interrupted"
    assert set(report["metrics"]) == {"baseline_mae"}
    assert report["verdict"] == "not judged"
    assert "Interrupted" in out


def test_an_error_is_raised_and_leaves_a_report(run, tmp_path):
    with pytest.raises(ZeroDivisionError):
        run("--note", "1 / 0")
    (report,) = tmp_path.glob("runs/guess/*/report.json")
    assert json.loads(report.read_text())["error"].startswith("ZeroDivisionError")


def test_missing_real_data_are_one_clear_message(run, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(
        "keras.utils.get_file", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("offline"))
    )
    status, _, err, report = run(data=("--data", "real"))
    assert status == 1
    assert "boston_housing.npz" in err
    assert "Traceback" not in err
    assert report["status"] == "failed"


def test_help_shows_the_lesson_and_every_option(run):
    status, out, _, _ = run("--help")
    assert status == 0
    for text in ("Guess the mean price.", "Teaches   What a baseline is.", "Data      Boston housing."):
        assert text in out
    for text in (
        "--epochs INT",
        "Passes over the rows.",
        "--seed INT",
        "--quick",
        "--data-dir",
        "--out PATH",
    ):
        assert text in out


def test_a_mistyped_option_suggests_the_near_one(run):
    status, _, err, report = run("--epoch", "3")
    assert status == 2
    assert "--epochs" in err
    assert report is None


@pytest.mark.parametrize(
    "args",
    [("--epochs", "many"), ("--epochs", "0"), ("--seed", "-1"), ("--data", "fake"), ("--quick", "5")],
)
def test_a_wrong_value_is_refused_before_any_work(run, args):
    status, _, err, report = run(*args)
    assert status == 2
    assert args[-1] in err
    assert report is None


def test_an_output_folder_that_cannot_be_made_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, _, report = run("--out", str(tmp_path / "file" / "runs"))
    assert "guess: " in status  # sys.exit(message): status 1, the message on standard error
    assert report is None


def test_scores_are_written_with_four_figures(run):
    lesson = LESSON.replace("test_mae=5.0", "a=0.88123, b=12.3456, c=48210.7, d=0.0, e=2e-5")
    out = run(lesson=lesson)[1]
    for line in (r"a +0\.8812", r"b +12\.35", r"c +48211", r"d +0 ", r"e +2e-05"):
        assert re.search(line, out)
