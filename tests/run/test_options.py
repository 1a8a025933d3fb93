import functools
import importlib
import json
import os

import pytest
from conftest import ROOT
from run.guess import LESSON, TRAINING

from recipes.__main__ import names
from toolkit import _files
from toolkit.run.recipe import Recipe


def test_quick_changes_the_defaults_and_a_given_option_wins(run):
    assert run("--quick")[3]["options"]["epochs"] == 1
    assert run("--quick", "--epochs", "4")[3]["options"]["epochs"] == 4


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
    [
        ("--epochs", "many"),
        ("--epochs", "0"),
        ("--seed", "-1"),
        ("--data", "fake"),
        ("--quick", "5"),
        ("--jobs", "0"),
        ("--data-dir", "/no/such/folder"),
    ],
)
def test_a_wrong_value_is_refused_before_any_work(run, args):
    status, _, err, report = run(*args)
    assert status == 2
    assert args[-1] in err
    assert report is None


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


@pytest.mark.parametrize("name", ["report.json", "checkpoints", "history.csv"])
def test_resume_follows_no_link_and_waits_for_no_pipe(name, run, folders, tmp_path):
    run("--note", "raise KeyboardInterrupt")
    (folder,) = folders()
    kept, path = (folder / "report.json").read_text(), folder / name
    (tmp_path / "there").mkdir()
    (tmp_path / "there.json").write_text(kept)
    for lay in (
        lambda: path.symlink_to(tmp_path / ("there.json" if path.suffix else "there")),
        functools.partial(os.mkfifo, path),
    ):
        path.unlink(missing_ok=True)
        lay()
        if name != "checkpoints" or path.is_symlink():
            status, _, err, _ = run("--resume", str(folder), data=())
            what = "a link" if path.is_symlink() else "no regular file"
            assert (status, f"{name} is {what}" in err) == (2, True), err
    assert (tmp_path / "there.json").read_text() == kept
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("name", ["model.keras", ".lock", "unfinished-a.csv", "checkpoints/fit/epoch.state"])
def test_resume_writes_through_no_link(name, run, folders, tmp_path):
    run("--note", "raise KeyboardInterrupt")
    (folder,) = folders()
    (path := folder / name).parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    for target in ("there", "none"):
        (tmp_path / "there").write_text("mine")
        path.symlink_to(tmp_path / target)
        status, out, err, _ = run("--resume", str(folder), data=())
        assert (status, out, f"{name} is a link" in err, len(err.splitlines())) == (2, "", True, 1), err
        path.unlink()
    assert (tmp_path / "there").read_text() == "mine"
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="links are followed")
def test_a_lock_that_is_a_link_makes_and_opens_nothing(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "new")
    with _files.locked(tmp_path / ".lock"):
        assert not (tmp_path / "new").exists()


def test_an_option_that_is_not_described_is_named_in_a_line(run, tmp_path):
    lesson = LESSON.replace("        epochs: Passes over the rows.\n", "")
    for args in ((), ("--help",)):
        status, out, err, _ = run(*args, lesson=lesson)
        wanted = f"{tmp_path}/guess.py: the docstring of main must describe epochs under Args:, for --epochs"
        assert (status, out, err) == (2, "", f"guess: {wanted}\n")


@pytest.mark.parametrize("sweep", ["unit=2", "units", "units=two", "units=0", "bias=maybe", "=3"])
def test_a_wrong_sweep_is_refused_before_any_work(run, folders, sweep):
    status, _, err, _ = run("--set", sweep, lesson=TRAINING)
    assert status == 2
    assert "units" in err or "bias" in err
    assert folders() == []


@pytest.mark.parametrize("name", names())
def test_what_is_read_from_the_source_is_what_the_module_has(name):
    read = Recipe.read(ROOT / "recipes" / f"{name}.py")
    real = Recipe.of(importlib.import_module(f"recipes.{name}").main)
    for what in ("name", "docstring", "expected", "quick", "start", "typed"):
        assert getattr(read, what) == getattr(real, what)
    assert read.main.__doc__ == real.main.__doc__
    assert [str(each) for each in read.parameters().values()] == [
        str(each) for each in real.parameters().values()
    ]


def test_a_value_that_only_the_data_can_refuse_is_one_line_too(run):
    note = "raise ValueError('`k` must be between 2 and n=404. Received: k=3')"
    status, out, err, report = run("--epochs", "3", "--note", note)
    assert status == 2
    assert err == "guess: --epochs 3 cannot be: `k` must be between 2 and n=404. Received: k=3\n"
    assert "Results" not in out
    assert report["status"] == "failed"


@pytest.mark.parametrize("received", ["k=5", "k=33", "shape (3, 1)", "k=3 and j=4"])
def test_an_error_that_no_option_is_to_blame_for_is_raised(run, received):
    """5 is the default, which the recipe has to answer for."""
    with pytest.raises(ValueError, match="must be"):
        run(
            "--epochs",
            "3" if received != "k=5" else "5",
            "--note",
            f"raise ValueError('must be. Received: {received}')",
        )


FAULTS = [
    ("options", None),
    ("options", []),
    ("options", {"epochs": "five", "note": ""}),
    ("options", {"epochs": 5.5, "note": ""}),
    ("options", {"epochs": True, "note": ""}),
    ("options", {"epochs": [5], "note": ""}),
    ("options", {"epochs": -5, "note": ""}),
    ("options", {"epochs": 5, "note": None}),
    ("options", {"epochs": 5, "note": {"a": 1}}),
    ("options", {"epochs": 5}),
    ("seed", "0"),
    ("seed", 1.5),
    ("seed", -1),
    ("seed", 2**40),
    ("seed", None),
    ("command", None),
    ("command", "quick"),
    ("command", {"quick": 1, "data": "sample", "data_dir": None}),
    ("command", {"quick": False, "data": "other", "data_dir": None}),
    ("command", {"quick": False, "data": "sample", "data_dir": 5}),
    ("command", {"quick": False, "data": "sample", "data_dir": None, "seeds": 5, "out": "/"}),
    ("recipe", ["guess"]),
    ("status", ["finished"]),
    ("status", "done"),
    ("verdict", [1]),
    ("error", 5),
    ("seconds", "5"),
    ("metrics", {"test_mae": "5"}),
    ("data", [{"name": "a"}]),
]


@pytest.mark.parametrize(("key", "value"), FAULTS)
def test_a_report_that_was_changed_is_refused_in_a_line(key, value, run, folders):
    run("--note", "raise KeyboardInterrupt")
    (folder,) = folders()
    path = folder / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    before = path.read_bytes()
    status, out, err, _ = run("--resume", str(folder), data=())
    assert (status, out) == (2, "")
    assert err.startswith("guess: --resume must be the folder of a run")
    assert len(err.splitlines()) == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "null", '{"recipe": "guess"}', "[" * 100_000])
def test_a_report_that_is_none_is_refused_in_a_line(content, run, tmp_path):
    (tmp_path / "report.json").write_text(content)
    status, out, err, _ = run("--resume", str(tmp_path), data=())
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("guess: --resume must be the folder of a run")


def test_options_of_every_kind_survive_a_resume(run, folders):
    odd = "--note=-x 'a' \\"
    note = "\nif not run.path('again').exists():\n    run.path('again').touch()\n    raise KeyboardInterrupt"
    lesson = LESSON.replace(
        'note: str = ""',
        'note: str = "", odd: str = "", sizes: tuple[int, ...] = (1, 2), on: bool = True, '
        "rate: float | None = None",
    )
    lesson = lesson.replace(
        "        note: What to print.",
        "        note: What to print.\n        odd: O.\n        sizes: S.\n        on: Is.\n        rate: R.",
    )
    given = [f"--odd={odd}", "--sizes", "3", "4", "5", "--no-on", "--rate", "1e-07", "--seed", "7"]
    status, _, _, report = run("--note", note, *given, lesson=lesson)
    assert status == 130
    (folder,) = folders()
    assert run("--resume", str(folder), lesson=lesson, data=())[0] == 0
    again = json.loads((folder / "report.json").read_text())
    assert (
        again["options"]
        == report["options"]
        == {"epochs": 5, "note": note, "odd": odd, "sizes": [3, 4, 5], "on": False, "rate": 1e-07}
    )
    assert again["seed"] == 7


def test_help_is_as_wide_as_the_terminal_and_shows_no_none(run, monkeypatch):
    lesson = LESSON.replace("What a baseline is.", "What " + "a long story " * 12).replace(
        'note: str = ""', "note: str | None = None"
    )
    for columns in (60, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        _, out, _, _ = run("--help", lesson=lesson)
        assert max(map(len, out.splitlines()[1:])) <= columns  # the first one names this file
        assert "{None}" not in out
        assert "--note STR" in out
        assert "Teaches   What a long story" in out
