import importlib.util
import json
import re
import textwrap

import pytest

from toolkit import training
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
        paths = [folder / "report.json" for folder in new if (folder / "report.json").is_file()]
        report = json.loads(paths[0].read_text()) if paths else None
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


def test_a_lesson_without_a_data_set_is_judged_too(run):
    lesson = LESSON.replace("run.data.boston_housing()", "(0, np.ones(2)), (0, np.zeros(2))")
    status, out, _, report = run(lesson=lesson)
    assert (status, report["verdict"], report["data"]) == (0, "inside", [])
    assert "SAMPLE" not in out
    status, _, _, report = run(lesson=lesson.replace("5.0)", "50.0)"))
    assert (status, report["verdict"]) == (1, "outside")
    assert run("--quick", lesson=lesson)[3]["verdict"] == "not judged"


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


TRAINING = '''
"""Fit a line.

Data      Boston housing.
"""
import keras
import toolkit

EXPECTED = {"test_loss": (0.0, 1e9)}
QUICK = {}


class Stop(keras.callbacks.Callback):
    at = None

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == Stop.at:
            raise KeyboardInterrupt


def main(run, *, epochs: int = 4, units: int = 2, bias: bool = True):
    """Train.

    Args:
        epochs: Passes over the rows.
        units: Width.
        bias: Whether there is one.
    """
    (x, y), (x_test, y_test) = run.data.boston_housing()
    layers = [keras.layers.Dense(units), keras.layers.Dropout(0.5), keras.layers.Dense(1, use_bias=bias)]
    model = keras.Sequential([keras.Input((13,)), keras.layers.BatchNormalization(), *layers])
    model.compile("adam", loss="mse")
    watch = {"callbacks": [Stop(), run.log()], "checkpoint": run.keep()}
    toolkit.fit(model, x, y, epochs=epochs, validation_split=0.2, verbose=0, **watch)
    run.score(test_loss=model.evaluate(x_test, y_test, verbose=0))
    run.figure("curve.png", toolkit.plot_history(run.path("history.csv")))
'''


@pytest.fixture
def folders(tmp_path):
    """Return a function that gives the new folders of runs."""
    seen = set()

    def folders():
        new = set(tmp_path.glob("runs/guess/*")) - seen
        seen.update(new)
        return sorted(new)

    return folders


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # CSVLogger's file stays open
def test_a_run_that_was_cut_short_goes_on_to_the_same_numbers(run, folders, monkeypatch):
    monkeypatch.setattr("toolkit.training.checkpoint.SECONDS", 0.0)
    _, _, _, wanted = run("--epochs", "5", "--seed", "3", lesson=TRAINING)
    (whole,) = folders()
    assert not (whole / "checkpoints").exists()
    status, out, _, _ = run("--epochs", "5", "--seed", "3", lesson=TRAINING.replace("at = None", "at = 3"))
    (cut,) = folders()
    assert (status, f"--resume {cut} goes on" in out) == (130, True)
    status, out, _, _ = run("--resume", str(cut), lesson=TRAINING, data=())
    assert status == 0, out
    report = json.loads((cut / "report.json").read_text())
    assert (report["status"], report["seed"], report["options"]) == ("finished", 3, wanted["options"])
    assert report["metrics"] == wanted["metrics"]
    assert (cut / "history.csv").read_text() == (whole / "history.csv").read_text()
    status, _, err, _ = run("--resume", str(cut), lesson=TRAINING, data=())
    assert (status, "which is finished" in err) == (2, True)


def test_resume_is_refused_where_it_cannot_be_right(run, folders, tmp_path):
    for args, message in [
        (("--resume", str(tmp_path)), "must be the folder of a run, with its report.json"),
        (("--resume", str(tmp_path), "--epochs", "3"), "takes the options from the folder's report"),
    ]:
        status, _, err, _ = run(*args, lesson=TRAINING, data=())
        assert (status, message in err) == (2, True), err
    run("--note", "raise KeyboardInterrupt")
    (other,) = folders()
    status, _, err, _ = run("--resume", str(other), lesson=TRAINING, data=())
    assert (status, "must be the folder of a run of guess" in err) == (2, True), err


def test_seeds_and_settings_are_run_side_by_side(run, folders):
    alone = run("--seed", "5", "--units", "3", lesson=TRAINING)[3]["metrics"]["test_loss"]
    folders()
    options = ["--seed", "4", "--seeds", "2", "--set", "units=3", "--set", "bias=true,false"]
    status, out, _, _ = run(*options, lesson=TRAINING)
    assert status == 0, out
    (folder,) = folders()
    results = json.loads((folder / "study.json").read_text())
    labels = ["units=3, bias=true", "units=3, bias=false"]
    assert [(result["label"], result["seed"]) for result in results] == [
        (label, seed) for label in labels for seed in (4, 5)
    ]
    assert results[1]["metrics"]["test_loss"] == pytest.approx(alone, rel=1e-5)  # as if it had been run alone
    assert "[2-4/4] trained together" in out
    assert len({result["metrics"]["test_loss"] for result in results}) == 4
    assert (folder / "study.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(folder.glob("*/report.json"))) == 4
    for label in labels:
        assert re.search(rf"^  {label} .* 2$", out, flags=re.MULTILINE)
    assert max(map(len, out.splitlines()[-10:-1])) <= 80


def test_ctrl_c_ends_runs_that_train_together(run, folders, monkeypatch):
    original = training.together

    def together(works):
        def interrupted():
            raise KeyboardInterrupt

        original([works[0], interrupted, *works[1:]])

    monkeypatch.setattr(training, "together", together)
    status, out, _, _ = run("--seeds", "3", lesson=TRAINING)
    (folder,) = folders()
    assert status == 130
    assert "Reports, table and figure" in out
    assert [result["seed"] for result in json.loads((folder / "study.json").read_text())] == [0, 1, 2]


@pytest.mark.parametrize("sweep", ["unit=2", "units", "units=two", "units=0", "bias=maybe", "=3"])
def test_a_wrong_sweep_is_refused_before_any_work(run, folders, sweep):
    status, _, err, _ = run("--set", sweep, lesson=TRAINING)
    assert status == 2
    assert "units" in err or "bias" in err
    assert folders() == []


def test_a_full_disk_is_one_line_and_earlier_runs_stay(run, folders, monkeypatch):
    run(lesson=TRAINING)
    (before,) = folders()
    files = {path: path.read_bytes() for path in before.iterdir()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    status, _, err, _ = run(lesson=TRAINING)
    assert (status, err) == (1, "guess: [Errno 28] No space left on device\n")
    monkeypatch.setattr("os.fsync", full)
    status, _, err, _ = run(lesson=TRAINING)
    assert status == "guess: [Errno 28] No space left on device"
    assert {path: path.read_bytes() for path in before.iterdir()} == files
