import json
import re

import pytest
from matplotlib.figure import Figure
from run.guess import LESSON, TRAINING

from toolkit import Data
from toolkit.data.sets import Origin
from toolkit.run import Run


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


@pytest.mark.parametrize(
    ("ranges", "args", "reason"),
    [
        ("{}", (), "the recipe names no ranges"),
        ("{'a': (1, 2)}", ("--epochs", "6"), "hold for the default options"),
    ],
)
def test_it_is_said_why_nothing_was_judged(ranges, args, reason, run):
    lesson = LESSON.replace("run.data.boston_housing()", "(0, np.ones(2)), (0, np.zeros(2))")
    _, out, _, report = run(*args, lesson=lesson.replace('{"test_mae": (1.0, 9.0)}', ranges))
    assert report["verdict"] == "not judged"
    assert f"Verdict: not judged, because {reason}" in out.replace("the ranges hold", "hold")
    assert "model" not in out  # there is none


def test_the_seed_sets_every_generator(run):
    draws = [re.search(r"draw (\S+)", run("--seed", seed)[1]).group(1) for seed in ("1", "1", "2")]
    assert draws[0] == draws[1] != draws[2]


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


def test_an_output_folder_that_cannot_be_made_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, _, report = run("--out", str(tmp_path / "file" / "runs"))
    assert "guess: " in status  # sys.exit(message): status 1, the message on standard error
    assert report is None


def test_scores_are_written_with_four_figures(run):
    lesson = LESSON.replace("test_mae=5.0", "a=0.88123, b=12.3456, c=48210.7, d=0.0, e=2e-5")
    out = run(lesson=lesson)[1]
    for line in (r"a +0\.8812", r"b +12\.35", r"c +48211", r"d +0\n", r"e +2e-05"):
        assert re.search(line, out)


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
    assert (cut / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    status, _, err, _ = run("--resume", str(cut), lesson=TRAINING, data=())
    assert (status, "which is finished" in err) == (2, True)


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


def test_what_runs_share_lies_beside_the_folders_of_all_recipes_in_a_study_too(tmp_path):
    for place in ("guess/2026", "guess/2026/units=4/seed=0"):
        this = Run("guess", tmp_path / place, Data("sample"), 0, {}, default=True)
        assert this.shared("records") == tmp_path / "records"


@pytest.mark.parametrize("source", ["sample", "real"])
def test_a_figure_of_the_sample_says_so(source, tmp_path):
    this = Run("guess", tmp_path, Data("sample"), 0, {}, default=True)
    this.data.used.append(Origin(name="mnist", source=source, files={}, reason=""))
    figure = Figure()
    this.figure("empty.png", figure)
    assert [text.get_text() for text in figure.texts] == ["sample data"] * (source == "sample")
    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")
