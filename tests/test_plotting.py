import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from toolkit import plot_folds, plot_history

CURVES = {
    "loss": [0.9, 0.5, 0.4],
    "val_loss": [0.8, 0.6, 0.7],
    "acc": [0.5, 0.7, 0.9],
    "val_acc": [0.5, 0.6, 0.6],
}


def drawn(axes):
    return {
        line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.get_lines()
    }


def test_training_is_points_and_validation_a_line():
    axes = plot_history(CURVES)
    training, validation = axes.get_lines()
    assert (training.get_linestyle(), training.get_marker()) == ("None", "o")
    assert (validation.get_linestyle(), validation.get_marker()) == ("-", "None")
    assert drawn(axes) == {
        "training": ([1, 2, 3], CURVES["loss"]),
        "validation": ([1, 2, 3], CURVES["val_loss"]),
    }
    assert axes.get_title()
    assert axes.get_xlabel() == "epoch"
    assert axes.get_ylabel() == "loss"
    assert axes.get_legend()


@pytest.mark.parametrize("metric", ["acc", "accuracy"])
@pytest.mark.parametrize("column", ["acc", "accuracy"])
def test_either_name_of_a_metric_finds_it(metric, column):
    curves = {column: [0.5], f"val_{column}": [0.6]}
    assert drawn(plot_history(curves, metric))["validation"] == ([1], [0.6])
    assert plot_folds([curves], metric).get_ylabel() == "accuracy"


def test_a_csv_of_a_training_without_validation_has_no_validation_curve(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss,val_loss\n0,0.5,NA\n1,0.25,NA\n")
    (line,) = plot_history(path).get_lines()
    assert list(line.get_ydata()) == [0.5, 0.25]


@pytest.mark.parametrize("smooth", [0.0, 0.5])
def test_an_epoch_without_validation_is_a_gap_and_no_more(smooth, tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss,val_loss\n0,0.5,NA\n1,0.25,0.5\n2,0.25,NA\n3,0.25,0.5\n")
    _, validation = plot_history(path, smooth=smooth).get_lines()
    np.testing.assert_array_equal(validation.get_ydata(), [np.nan, 0.5, np.nan, 0.5])


def test_a_history_a_csv_and_a_json_file_draw_the_same(tmp_path):
    history = keras.callbacks.History()
    history.history = CURVES
    columns = list(CURVES)
    rows = [",".join(map(str, values)) for values in zip(*CURVES.values(), strict=True)]
    (tmp_path / "history.csv").write_text("\n".join([",".join(columns), *rows]))
    (tmp_path / "history.json").write_text(json.dumps(CURVES))
    wanted = drawn(plot_history(CURVES))
    for source in (history, tmp_path / "history.csv", str(tmp_path / "history.json")):
        assert drawn(plot_history(source)) == wanted


def test_named_histories_are_compared():
    axes = plot_history({"small": CURVES, "large": CURVES})
    labels = ["small training", "small validation", "large training", "large validation"]
    assert list(drawn(axes)) == labels
    colors = [line.get_color() for line in axes.get_lines()]
    assert colors[0] == colors[1] != colors[2] == colors[3]


def test_skip_smooth_log_and_ax():
    ax = Figure().subplots()
    assert plot_history(CURVES, skip=1, log=True, ax=ax) is ax
    assert drawn(ax)["training"] == ([2, 3], [0.5, 0.4])
    assert ax.get_yscale() == "log"
    smooth = drawn(plot_history({"loss": [1.0, 0.0, 0.0]}, smooth=0.5))["training"][1]
    np.testing.assert_allclose(smooth, [1, 1 / 3, 1 / 7])  # weights 1, 1/2, 1/4, normalized
    constant = drawn(plot_history({"loss": [3.0] * 5}, smooth=0.9))["training"][1]
    np.testing.assert_allclose(constant, 3)


def test_folds_show_their_mean_and_its_best_epoch():
    folds = [{"val_mae": [3.0, 2.0, 2.5, 1.0]}, {"val_mae": [5.0, 2.0, 3.5]}]  # the second one stopped early
    axes = plot_folds(folds, "mae")
    lines = drawn(axes)
    assert lines["mean of 2 folds"] == ([1, 2, 3, 4], [4.0, 2.0, 3.0, 1.0])
    assert lines["lowest mean: 1 at epoch 4"] == ([4], [1.0])
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 1
    assert band[:, 1].max() == 5
    assert "highest mean: 0.9 at epoch 2" in drawn(
        plot_folds([{"val_accuracy": [0.5, 0.9, 0.7]}], "accuracy")
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot_history(CURVES, "mae"), "must be one of loss, val_loss, acc, val_acc. Received: 'mae'"),
        (lambda: plot_history(CURVES, smooth=1), "`smooth` must be"),
        (lambda: plot_folds([CURVES], smooth=-0.1), "`smooth` must be"),
        (lambda: plot_history(CURVES, skip=3), "`skip` must leave an epoch"),
        (lambda: plot_folds([CURVES], skip=3), "`skip` must leave an epoch"),
        (lambda: plot_folds([]), "at least one"),
        (lambda: plot_folds([{"loss": [1.0]}]), "must be one of loss. Received: 'val_loss'"),
        (lambda: plot_history(5), "must be a History"),
        (lambda: plot_history("history.txt"), "must be a .csv or .json file"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message, tmp_path, monkeypatch):
    (tmp_path / "history.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        call()


def test_no_display_and_no_global_state(tmp_path):
    code = (
        "import sys, toolkit\n"
        f"toolkit.plot_history({CURVES!r}).figure.savefig('curve.png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={"MPLBACKEND": "TkAgg"})
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
