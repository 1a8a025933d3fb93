import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

import recipes.__main__
from recipes.__main__ import describe, names
from toolkit import Data, load
from toolkit.run import cli

FIGURES = {
    "backprop": ["loss.png"],
    "boston": ["folds.png"],
    "distribute": ["costs.png"],
    "dynamic": ["mae.png"],
    "functional": ["graph.png", "mae.png"],
    "imdb": ["loss.png", "accuracy.png"],
    "imdb_sequence": ["accuracy.png", "words.png"],
    "initialization": ["variances.png"],
    "losses": ["outliers.png"],
    "mnist": ["accuracy.png", "mistakes.png"],
    "optimizers": ["valley.png", "rates.png", "loss.png"],
    "mnist_cnn": ["accuracy.png", "filters.png"],
    "perceptron": ["boundaries.png"],
    "regularization": ["cures.png"],
    "reuters": ["accuracy.png", "confusion.png"],
    "saving": ["mae.png"],
    "streaming": ["folds.png"],
    "tensors": ["maps.png"],
    "transfer": ["draws.png"],
}


# They take longest on the real data, and the first one on the sample, too.
LONG = [
    *("distribute", "backprop", "imdb_sequence", "initialization", "mnist_cnn", "optimizers"),
    *("dynamic", "mnist", "regularization", "saving", "streaming", "transfer"),
]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def recipes_but_slow_ones(slow_ones):
    return [slow(name) if name in slow_ones else name for name in names()]


def command(*args, **kwargs):
    return subprocess.run([sys.executable, "-m", *args], capture_output=True, text=True, cwd=ROOT, **kwargs)


def quick(name, tmp_path, *options):
    """Run a recipe quickly on the sample, in this process; return its report and folder."""
    module = importlib.import_module(f"recipes.{name}")
    with pytest.raises(SystemExit) as exit_:
        cli(module.main, ["--quick", "--data", "sample", "--out", str(tmp_path), *options])
    assert exit_.value.code == 0
    (folder,) = tmp_path.glob(f"{name}/*")
    return json.loads((folder / "report.json").read_text()), folder


def test_every_recipe_has_its_figures_listed_here():
    unlisted = set(names()) - set(FIGURES)
    assert not unlisted, "list the figures of these recipes in FIGURES, at the top of this file"
    assert sorted(FIGURES) == names()


@pytest.mark.parametrize("name", recipes_but_slow_ones(LONG[:1]))
def test_it_runs_on_the_sample(name, tmp_path, capsys):
    report, folder = quick(name, tmp_path)
    out = capsys.readouterr().out
    assert report["verdict"] == "not judged"
    assert set(report["expected"]) <= set(report["metrics"])
    if name == "perceptron":  # makes its points itself
        assert report["data"] == []
    else:
        assert report["data"][0]["source"] == "sample"
        assert out.startswith("SAMPLE DATA")
        assert "SAMPLE DATA" in out.splitlines()[-1]
    if name not in ("tensors", "losses"):  # they train nothing
        for kind in ("baseline_", "linear_"):
            named = [key for key in report["metrics"] if key.startswith(kind)]
            assert named, f"score what the model has to beat: run.score({kind}accuracy=...)"
        assert list(folder.glob("*.csv")), "write the learning curve: toolkit.fit(..., callbacks=[run.log()])"
    for figure in FIGURES[name]:
        assert (folder / figure).read_bytes().startswith(b"\x89PNG")
    for model in folder.glob("*.keras"):
        assert load(model).count_params() > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mnist", ["--dataset", "fashion_mnist", "--one-hot"]),
        (
            "imdb",
            ["--hidden-layers", "1", "--activation", "tanh", "--loss", "mse", "--review", "A great film!"],
        ),
        ("reuters", ["--one-hot", "--units", "4"]),
        (
            "boston",
            ["--loss", "huber", "--dataset", "california_housing", "--batch-size", "256", "--repeats", "2"],
        ),
        ("perceptron", ["--units", "2", "--noise", "0.3"]),
        ("losses", ["--wrong-prices", "3"]),
        slow("distribute", ["--workers", "1", "--epochs", "3"]),
        slow("distribute", ["--workers", "3", "--batch-size", "70"]),
        slow("dynamic", ["--hidden-layers", "2", "--tolerance", "1"]),
        slow("initialization", ["--units", "20"]),
        slow("optimizers", ["--epochs", "2", "--round-epochs", "1"]),
        slow("streaming", ["--dataset", "boston_housing", "--folds", "3"]),
        slow("streaming", ["--dataset", "mnist", "--buffer", "1"]),
        slow("streaming", ["--dataset", "imdb"]),
        slow("regularization", ["--units", "2", "--penalty", "0.1", "--rate", "0.2"]),
        ("functional", ["--dear-weight", "100"]),
        slow("imdb_sequence", ["--cell", "pooling", "--word", "xyzzy"]),
        ("imdb_sequence", ["--cell", "rnn", "--bidirectional", "--maxlen", "5"]),
        slow("imdb_sequence", ["--cell", "gru", "--bidirectional"]),
        slow("transfer", ["--alike", "--labels", "20"]),
        slow("mnist_cnn", ["--shuffle-pixels", "--no-batch-normalization", "--dropout", "0.1"]),
    ],
)
def test_its_options_work(name, options, tmp_path, capsys):
    report, _ = quick(name, tmp_path, *options)
    assert report["status"] == "finished"
    if name == "imdb":
        assert re.search(r"Your review is positive with probability 0\.\d{3}", capsys.readouterr().out)


def test_a_trained_model_beats_the_baseline_on_the_sample_and_not_what_can_be_known(tmp_path):
    report, _ = quick("imdb", tmp_path, "--epochs", "8", "--batch-size", "64")
    metrics = report["metrics"]
    assert metrics["baseline_accuracy"] + 0.2 < metrics["test_accuracy"] < Data("sample").imdb().best + 0.02


def test_integer_and_one_hot_labels_give_the_same_result(tmp_path):
    one = quick("reuters", tmp_path / "integer")[0]["metrics"]["test_accuracy"]
    other = quick("reuters", tmp_path / "one_hot", "--one-hot")[0]["metrics"]["test_accuracy"]
    assert one == pytest.approx(other, abs=1e-6)


@pytest.mark.real
@pytest.mark.parametrize("name", recipes_but_slow_ones(LONG))
def test_it_lands_in_its_range_on_the_real_data(name, regression):
    result, folder = regression(name)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Verdict: inside" in result.stdout
    assert result.stderr == ""
    (path,) = folder.glob("*/*/report.json")
    report = json.loads(path.read_text())
    assert report["verdict"] == "inside"
    for metric, (low, high) in describe(name)["expected"].items():
        assert low <= report["metrics"][metric] <= high
    for metric, value in report["metrics"].items():
        if metric == "test_accuracy":
            assert value > report["metrics"]["baseline_accuracy"] + 0.3
        if metric in ("test_mae", "cv_mae"):
            assert value < report["metrics"]["baseline_mae"] - 2


def test_without_data_and_network_it_falls_back_says_so_and_exits_with_0(tmp_path):
    offline = {"KERAS_HOME": str(tmp_path), "HOME": str(tmp_path), "http_proxy": "http://127.0.0.1:9"}
    offline |= {"https_proxy": "http://127.0.0.1:9", "PYTHONPATH": str(ROOT)}
    env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")} | offline
    result = command("recipes", "boston", "--quick", "--out", str(tmp_path / "runs"), env=env)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("SAMPLE DATA")
    assert lines[-1].startswith("SAMPLE DATA")
    assert "Traceback" not in result.stderr


def test_ctrl_c_leaves_a_report_the_history_so_far_and_status_130(tmp_path):
    options = ["--data", "sample", "--epochs", "100000", "--batch-size", "64", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "recipes.imdb", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("Epoch 1"):
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert "Interrupted" in rest
    (folder,) = tmp_path.glob("imdb/*")
    report = json.loads((folder / "report.json").read_text())
    assert report["status"] == "interrupted"
    assert "linear_accuracy" in report["metrics"]
    assert len((folder / "history.csv").read_text().splitlines()) >= 2


def test_the_list_shows_every_recipe_and_does_not_wait_for_tensorflow():
    code = """
import sys, recipes.__main__
print(recipes.__main__.listing(), end="")
assert not {"keras", "tensorflow", "numpy"} & set(sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert command("recipes").stdout == result.stdout
    for name in names():
        assert f"\n{name} " in "\n" + result.stdout
        assert describe(name)["title"][:50] in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_lesson_that_does_not_yet_say_all_of_itself_is_listed_and_the_table_says_what_it_lacks(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(recipes.__main__, "__file__", str(tmp_path / "__main__.py"))
    (tmp_path / "young.py").write_text('"""Begin.\n\nTeaches   How.\n"""\n')
    assert "young           Begin." in recipes.__main__.listing()
    with pytest.raises(SystemExit, match=r"recipes/young.py: its docstring lacks the entry Takes$"):
        recipes.__main__.table()


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["imbd"], 2, "no recipe is called 'imbd'. Did you mean imdb?"),
        (["zzz"], 2, "There are: backprop, boston"),
        (["--help"], 0, "usage: python -m recipes"),
        (["--tabel"], 2, "unknown option '--tabel'"),
        (["notebook"], 2, "usage: python -m recipes"),
        (["notebook", "--help"], 0, "usage: python -m recipes"),
        (["notebook", "imbd"], 2, "no recipe is called 'imbd'. Did you mean imdb?"),
    ],
)
def test_the_list_helps_with_a_mistake(args, status, message):
    result = command("recipes", *args)
    assert result.returncode == status
    assert message in result.stdout + result.stderr


def test_help_of_a_recipe_by_either_way_is_the_same():
    one, other = command("recipes", "imdb", "--help"), command("recipes.imdb", "--help")
    assert one.returncode == other.returncode == 0
    assert one.stdout.splitlines()[1:] == other.stdout.splitlines()[1:]  # the first names the command
    assert one.stderr == other.stderr == ""
    assert "--hidden-layers INT" in one.stdout
