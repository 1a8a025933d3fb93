import json
import os
import pty
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from run.guess import TRAINING, finish, logged, the_study
from scipy import stats

from toolkit.run import report, results, study
from toolkit.run.recipe import Recipe


def test_seeds_and_settings_are_run_side_by_side_to_the_scores_of_each_alone(run, folders):
    alone = run("--seed", "5", "--units", "3", lesson=TRAINING)[3]["metrics"]["test_loss"]
    folders()
    options = ["--seed", "4", "--seeds", "2", "--set", "units=3", "--set", "bias=true,false"]
    status, out, _, _ = run(*options, lesson=TRAINING)
    assert status == 0, out
    (folder,) = folders()
    content = json.loads((folder / "study.json").read_text())
    labels = ["units=3, bias=true", "units=3, bias=false"]
    assert [(job["label"], job["seed"]) for job in content["jobs"]] == [
        (label, seed) for label in labels for seed in (4, 5)
    ]
    assert [job["folder"] for job in content["jobs"]] == [
        f"units=3,bias={bias}/seed={seed}" for bias in ("true", "false") for seed in (4, 5)
    ]
    assert content["jobs"][1]["metrics"]["test_loss"] == alone  # every bit
    assert len({job["metrics"]["test_loss"] for job in content["jobs"]}) == 4
    assert (folder / "study.png").read_bytes().startswith(b"\x89PNG")
    for job in content["jobs"]:
        report = json.loads((folder / job["folder"] / "report.json").read_text())
        assert (report["status"], report["seed"]) == ("finished", job["seed"])
        assert report["metrics"] == job["metrics"]
    for label in labels:
        assert re.search(rf"^  {label} .* 2$", out, flags=re.MULTILINE)
    *_, place, last = out.splitlines()
    assert last.startswith("SAMPLE DATA was used for boston_housing: ")
    assert place == f"Results: {folder}"
    assert max(map(len, out.splitlines()[-11:-2])) <= 80


def test_a_run_that_fails_is_named_and_the_others_go_on(counting, tmp_path):
    note = "assert run.seed != 1, 'not this one'"
    status, out = finish(counting("--seeds", "4", "--note", note, "--jobs", "2"))
    assert status == 1, out
    assert "seed=1 failed: AssertionError('not this one')" in out
    folder, content = the_study(tmp_path)
    assert [job["status"] for job in content["jobs"]] == ["finished", "failed", "finished", "finished"]
    assert "AssertionError: not this one" in (folder / "seed=1/output.txt").read_text()
    assert "3 of 4 runs are done" in out


def test_a_run_that_is_killed_is_started_again_and_not_for_ever(counting, tmp_path):
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    once = f"if run.seed == 0 and not run.path('x').exists():\n    run.path('x').touch()\n    {kill}"
    once = once.replace("\nos.kill", "\n    os.kill")
    status, out = finish(counting("--seeds", "2", "--note", once))
    assert status == 0, out
    assert logged(tmp_path) == {"begins 1 0": 2, "ends 1 0": 1, "begins 1 1": 1, "ends 1 1": 1}
    status, out = finish(counting("--seeds", "2", "--seed", "7", "--note", kill))
    assert status == 1
    assert "seed=7 failed: it ended 3 times before its end, with status -9" in out
    assert logged(tmp_path)["begins 1 7"] == 3


def test_ctrl_c_says_how_many_are_done_and_how_to_go_on(counting, tmp_path):
    args = ("--seeds", "6", "--jobs", "2", "--seconds", "0.5")
    with counting(*args, start_new_session=True) as process:
        for line in process.stdout:
            if line.startswith("[2/6]"):
                break
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        status, out = finish(process)
    assert status == 130
    folder, content = the_study(tmp_path)
    done = [job["status"] for job in content["jobs"]].count("finished")
    assert 2 <= done < 6
    assert f"Interrupted: {done} of 6 runs are done." in out
    assert f"--resume {folder} goes on." in out
    assert "Traceback" not in out
    status, out = finish(counting("--resume", str(folder), "--jobs", "3"))
    assert status == 0, out
    assert f"{done} of 6 runs were finished before." in out
    assert {key: count for key, count in logged(tmp_path).items() if key.startswith("ends")} == {
        f"ends 1 {seed}": 1 for seed in range(6)
    }
    assert {job["status"] for job in the_study(tmp_path)[1]["jobs"]} == {"finished"}


def test_ctrl_c_comes_to_each_run_once_and_by_its_study_alone(counting, tmp_path):
    """What a terminal sends goes to all processes of a session: a run would end in the midst of its end."""
    hear = """
import signal, time
heard = []
signal.signal(signal.SIGINT, lambda *_, heard=heard: heard.append(1))
open(os.environ["LOG"], "a").write("listens\\n")
while not heard:
    time.sleep(0.01)
time.sleep(1)
with open(os.environ["LOG"], "a") as file:
    file.write(f"heard {len(heard)}\\n")
"""
    with counting("--seeds", "2", "--jobs", "2", "--note", hear, start_new_session=True) as process:
        while not (tmp_path / "log").exists() or logged(tmp_path)["listens"] < 2:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        finish(process)
    assert logged(tmp_path)["heard 1"] == 2


def kill_and_resume(counting, tmp_path, runs, kills, seconds):
    """Kill the study at random moments, and resume it each time; no run may end twice or be lost."""
    draw = random.Random(0)
    args = ["--seeds", str(runs // 2), "--set", "units=1,2", "--jobs", "2", "--seconds", "0.05"]
    process = counting(*args)
    while not list(tmp_path.glob("runs/guess/*/study.json")):
        time.sleep(0.01)
    folder = the_study(tmp_path)[0]
    for _ in range(kills):
        time.sleep(draw.uniform(0, seconds))
        process.kill()
        process.communicate()
        process = counting("--resume", str(folder), "--jobs", "2")
    status, out = finish(process)
    assert status == 0, out
    ends = {key: count for key, count in logged(tmp_path).items() if key.startswith("ends")}
    assert ends == {f"ends {units} {seed}": 1 for units in (1, 2) for seed in range(runs // 2)}
    assert len({job["metrics"]["test_draw"] for job in the_study(tmp_path)[1]["jobs"]}) == runs


def test_a_study_that_was_killed_goes_on(counting, tmp_path):
    kill_and_resume(counting, tmp_path, runs=8, kills=2, seconds=2.0)


def test_a_run_that_outlives_its_study_is_waited_for_and_not_run_again(counting, tmp_path):
    process = counting("--seeds", "2", "--jobs", "2", "--seconds", "3")
    while not (tmp_path / "log").exists() or logged(tmp_path).total() < 2:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    folder = the_study(tmp_path)[0]
    status, out = finish(counting("--resume", str(folder), "--jobs", "2"))
    assert status == 0, out
    assert set(logged(tmp_path).values()) == {1}
    assert "Another process works in" in (folder / "seed=0/output.txt").read_text()


@pytest.mark.slow
def test_a_study_that_is_killed_again_and_again_loses_nothing_and_does_nothing_twice(counting, tmp_path):
    kill_and_resume(counting, tmp_path, runs=40, kills=10, seconds=4.0)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"version": 2, "recipe": "guess", "jobs": []}',
        '{"version": 1, "recipe": "other", "jobs": []}',
        '{"version": 1, "recipe": "guess", "jobs": 5}',
        '{"version": 1, "recipe": "guess", "jobs": [{"label": "", "seed": 0, "folder": "../x"}]}',
        '{"version": 1, "recipe": "guess", "jobs": [{"label": "", "seed": 0, "folder": "/x"}]}',
        '{"version": 1, "recipe": "guess", "jobs": [{"label": "", "seed": "a", "folder": "x"}]}',
        '{"version": 1, "recipe": "guess", "jobs": [{"label": "", "seed": Infinity, "folder": "x"}]}',
        '{"version": 1, "recipe": "guess", "jobs": [{"label": "", "seed": 0, "folder": "a\\u0000"}]}',
    ],
)
def test_a_study_that_is_none_is_refused_in_a_line(content, run, tmp_path):
    (tmp_path / "study.json").write_text(content)
    status, out, err, _ = run("--resume", str(tmp_path), data=())
    assert (status, out, len(err.splitlines())) == (2, "", 1)


def test_a_study_with_a_link_in_it_is_refused_in_a_line(run, tmp_path):
    (tmp_path / "seed=0").mkdir()
    jobs = [{"label": "", "seed": 0, "folder": "seed=0"}]
    (tmp_path / "study.json").write_text(json.dumps({"version": 1, "recipe": "guess", "jobs": jobs}))
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "seed=0/output.txt").symlink_to(tmp_path / "mine")
    status, out, err, _ = run("--resume", str(tmp_path), data=())
    assert (status, out, "seed=0/output.txt is a link" in err, len(err.splitlines())) == (2, "", True, 1)
    assert (tmp_path / "mine").read_text() == "mine"


LOST = {"status": "failed", "error": "its report.json is lost", "verdict": "not judged"}
LOST |= {"seconds": 0.0, "metrics": {}}


@pytest.mark.parametrize(
    "content",
    [
        *("", "5", "[]", "[" * 100_000, '[["status", "finished"]]'),
        *('{"status": ["finished"]}', '{"status": "done"}', '{"verdict": [1]}', '{"error": null}'),
        *('{"seconds": "5"}', '{"seconds": NaN}', '{"seconds": Infinity}', '{"seconds": true}'),
        *('{"metrics": 5}', '{"metrics": {"test_and": "x"}}', '{"metrics": {"a": 1%s}}' % ("0" * 400)),
        *('{"data": [5]}', '{"data": null}', '{"data": [{"name": "a"}]}', '{"data": {"name": "a"}}'),
    ],
)
def test_a_report_that_no_run_has_written_is_a_lost_one(content, tmp_path, capsys):
    (tmp_path / "seed=0").mkdir()
    (tmp_path / "seed=0/report.json").write_text(content)
    assert report.read(tmp_path / "seed=0") == LOST
    recipe = Recipe(print, "guess", "", {}, {}, ())
    assert study._conclude(recipe, tmp_path, [study.Job("", 0, "seed=0")], "") == 1
    assert capsys.readouterr().out.startswith("seed=0 failed: its report.json is lost (")


def test_the_report_of_a_training_that_diverged_is_none_that_is_lost(tmp_path):
    said = {"status": "finished", "metrics": {"test_mae": float("inf")}, "seconds": 5}
    report.write(tmp_path, said)
    assert report.read(tmp_path) == LOST | said


def test_values_with_odd_characters_get_plain_folders_of_their_own(counting, tmp_path):
    status, out = finish(counting("--set", "note=pass #/a,pass #_a,pass #../b", "--seeds", "1"))
    assert status == 0, out
    places = [job["folder"] for job in the_study(tmp_path)[1]["jobs"]]
    assert len(set(places)) == 3
    for place in places:
        assert re.fullmatch(r"note=pass_[\w.]+/seed=0", place)


def test_a_terminal_shows_one_line_that_changes(counting, tmp_path):
    terminal, end = pty.openpty()
    process = counting("--seeds", "2", "--jobs", "1", stdout=end, stderr=end, text=False)
    os.close(end)
    said = b""
    try:
        while chunk := os.read(terminal, 10_000):
            said += chunk
    except OSError:  # the other side is closed
        pass
    process.wait()
    os.close(terminal)
    progress, _, rest = said.decode().partition("\r\n")
    first, *updates = progress.split("\r\x1b[K")[1:]
    assert first.startswith("[0/2] 1 running, 0 failed")
    assert re.match(r"\[1/2\] 1 running, 0 failed, about \S+ left\. seed=0: test_draw \d", updates[0])
    assert updates[1].startswith("[2/2] 0 running")
    assert "test_draw" in rest


def some(values, label="", **more):
    return [
        results.Result(label, seed, {"baseline": 1.0, "test_mae": value} | more, Path("none"))
        for seed, value in enumerate(values)
    ]


def test_a_training_that_diverged_leaves_a_gap_in_the_table():
    (_, line, *_) = results.table(some([2.0, float("inf")])).splitlines()[2:]
    assert "nan" in line


def test_the_interval_of_the_mean_is_students():
    values = np.random.default_rng(0).normal(size=7)
    low, high = stats.t.interval(0.95, 6, values.mean(), stats.sem(values))
    assert results.interval(values.tolist()) == pytest.approx((high - low) / 2)


def test_numbers_of_any_size_stay_apart():
    values = [1.234567e-07, 1.1e-07, 123456.7, 0.123456789]
    table = results.table(some(values, label="a=1") + some(values[:2], label="b" * 40))
    for line in table.splitlines():
        assert len(line.split()) == 7  # a name, and six numbers or their heads


def test_a_reader_that_leaves_ends_the_study_without_a_complaint(counting, tmp_path):
    process = counting("--seeds", "4", "--jobs", "1", stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith("[1/4]")
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize("source", ["sample", "real"])
def test_the_figure_of_a_study_names_its_data(source, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(results, "draw", lambda found, title, expected: titles.append(title) or Figure())
    said = {"status": "finished", "metrics": {"test_mae": 1.0}, "data": [{"name": "mnist", "source": source}]}
    (tmp_path / "seed=0").mkdir()
    (tmp_path / "seed=0/report.json").write_text(json.dumps(said))
    recipe = Recipe(print, "guess", "", {}, {}, ())
    assert study._conclude(recipe, tmp_path, [study.Job("", 0, "seed=0")], "") == 0
    assert titles == [f"guess ({source} data)"]


def test_one_run_has_no_spread():
    (_, line, *_) = results.table(some([2.0])).splitlines()
    assert line.split() == ["default", "options", "1", "1", "1", "1"]


@pytest.mark.parametrize("runs", [1, 3, 30])
@pytest.mark.parametrize("variants", [1, 12])
def test_the_figure_shows_every_run_each_mean_and_the_range(runs, variants, tmp_path):
    found = []
    for variant in range(variants):
        for seed in range(runs):
            folder = tmp_path / f"{variant}-{seed}"
            folder.mkdir()
            rows = [f"{epoch},{9 / (epoch + 1)},{8 / (epoch + 1) + seed / 9}" for epoch in range(40)]
            (folder / "history.csv").write_text("\n".join(["epoch,mae,val_mae", *rows]))
            label = f"units={variant}, loss=huber" if variants > 1 else ""
            found.append(results.Result(label, seed, {"cv_mae": 5.0, "test_mae": 2 + seed / 9}, folder))
    figure = results.draw(found, "boston", {"test_mae": (2, 4)})
    scores, curves = figure.axes
    assert scores.get_xlabel() == "test_mae"
    points = [line for line in scores.get_lines() if line.get_marker() in "os" and len(line.get_xdata())]
    assert sum(len(line.get_xdata()) for line in points) == runs * variants
    assert "expected" in scores.get_legend_handles_labels()[1]
    assert curves.get_xlim()[0] > 0.9  # the first epochs are left out
    assert curves.get_ylabel() == "mean absolute error"
    figure.savefig(tmp_path / "study.png")
    assert not study.results.draw(some([1.0]), "x", {}).axes[1:]  # no empty half where there is no curve
