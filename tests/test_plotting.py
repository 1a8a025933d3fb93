import json
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toolkit import CrossValidation, plot_folds, plot_history

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
    training, validation, _ = axes.get_lines()
    assert (training.get_linestyle(), training.get_marker()) == ("None", "o")
    assert (validation.get_linestyle(), validation.get_marker()) == ("-", "None")
    assert drawn(axes) == {
        "training": ([1, 2, 3], CURVES["loss"]),
        "validation": ([1, 2, 3], CURVES["val_loss"]),
        "lowest: 0.6 at epoch 2": ([2], [0.6]),
    }
    assert axes.get_title() == "Loss over the epochs"
    assert axes.get_xlabel() == "epoch"
    assert axes.get_ylabel() == "loss"
    assert axes.get_legend()


def test_the_legend_of_folds_stands_below_the_axes_where_it_hides_no_curve():
    axes = plot_folds([CURVES, CURVES])
    (legend,) = axes.figure.legends
    axes.figure.draw_without_rendering()
    assert legend.get_window_extent().y1 < axes.get_window_extent().y0
    assert axes.get_legend() is None
    mine = Figure().subplots()  # among other axes, whose figure is not ours
    assert plot_folds([CURVES, CURVES], ax=mine).get_legend()
    assert not mine.figure.legends


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
    _, validation, best = plot_history(path, smooth=smooth).get_lines()
    np.testing.assert_array_equal(validation.get_ydata(), [np.nan, 0.5, np.nan, 0.5])
    assert best.get_xdata() == 2


def test_a_metric_with_an_array_an_epoch_has_no_curve_and_hinders_no_other(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text('epoch,loss,f1\n0,0.5,"[0.1, 0.2]"\n')
    assert drawn(plot_history(path)) == {"training": ([1], [0.5])}
    with pytest.raises(ValueError, match=r"`f1` must hold a number an epoch. Received: \['\[0.1, 0.2\]'\]"):
        plot_history(path, "f1")
    with pytest.raises(ValueError, match="`f1` must hold a number an epoch"):
        plot_history({"f1": [np.ones(2), np.ones(2)]}, "f1")


def test_a_history_a_data_frame_a_csv_and_a_json_file_draw_the_same(tmp_path):
    history = keras.callbacks.History()
    history.history = CURVES
    columns = list(CURVES)
    rows = [",".join(map(str, values)) for values in zip(*CURVES.values(), strict=True)]
    (tmp_path / "history.csv").write_text("\n".join([",".join(columns), *rows]))
    (tmp_path / "history.json").write_text(json.dumps(CURVES))
    wanted = drawn(plot_history(CURVES))
    for source in (
        history,
        pd.DataFrame(CURVES, index=[5, 5, 0]),
        tmp_path / "history.csv",
        str(tmp_path / "history.json"),
    ):
        assert drawn(plot_history(source)) == wanted


def test_named_histories_are_compared():
    axes = plot_history({"small": CURVES, "large": pd.DataFrame(CURVES)})
    parts = ["training", "validation", "lowest: 0.6 at epoch 2"]
    assert list(drawn(axes)) == [f"{name} {part}" for name in ("small", "large") for part in parts]
    colors = [line.get_color() for line in axes.get_lines() if "lowest" not in line.get_label()]
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


def test_folds_show_their_mean_and_its_best_epoch_of_those_that_all_have_reached():
    folds = [{"val_mae": [3.0, 2.0, 2.5, 1.0]}, {"val_mae": [5.0, 2.0, 3.5]}]  # the second one stopped early
    axes = plot_folds(folds, "mae")
    lines = drawn(axes)
    assert lines["validation, mean of 2 folds"] == ([1, 2, 3, 4], [4.0, 2.0, 3.0, 1.0])
    assert lines["lowest mean: 2 at epoch 2"] == ([2], [2.0])
    assert not any("training" in label for label in lines)
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 1
    assert band[:, 1].max() == 5
    assert "highest mean: 0.9 at epoch 2" in drawn(
        plot_folds([{"val_accuracy": [0.5, 0.9, 0.7]}], "accuracy")
    )


def test_folds_show_their_training_where_there_is_one_and_leave_gaps(tmp_path):
    folds = [{"loss": [4.0, 2.0], "val_loss": [np.nan, 5.0]}, {"loss": [2.0, 1.0], "val_loss": [np.nan, 7.0]}]
    axes = plot_folds(folds)
    assert drawn(axes)["training, mean"] == ([1, 2], [3.0, 1.5])
    assert "lowest mean: 6 at epoch 2" in drawn(axes)
    assert drawn(plot_folds(CrossValidation(tuple(folds)))).keys() == drawn(axes).keys()


@pytest.mark.parametrize("wrap", [dict, pd.DataFrame])
def test_groups_of_runs_are_compared(wrap):
    small, large = wrap({"val_mae": [4.0, 2.0]}), wrap({"val_mae": [2.0, 1.0]})
    axes = plot_folds({"small": [small, large], "large": [large]}, "val_mae", of="runs")
    assert drawn(axes) == {"small": ([1, 2], [3.0, 1.5]), "large": ([1, 2], [2.0, 1.0])}
    assert len(axes.collections) == 1  # there is no band around a single run
    assert axes.get_title() == "Validation mean absolute error of 3 runs"
    alone = plot_folds({"": [small, large]}, "mae", of="runs")
    assert "validation, mean of 2 runs" in drawn(alone)
    assert "lowest mean: 1.5 at epoch 2" in drawn(alone)


@pytest.mark.parametrize(
    ("metric", "word"),
    [("loss", "lowest"), ("jaccard_loss", "lowest"), ("acc", "highest"), ("r2_score", "highest"),
     ("cosine_similarity", "highest"), ("mean_io_u", "highest"), ("rmse", "lowest")],
)  # fmt: skip
def test_the_best_epoch_is_the_highest_where_more_is_better(metric, word):
    curves = {metric: [1.0, 1.0], f"val_{metric}": [1.0, 2.0]}
    wanted = f"{word}: {2 if word == 'highest' else 1} at epoch {2 if word == 'highest' else 1}"
    assert wanted in drawn(plot_history(curves, metric))


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("price_mae", "price mean absolute error"),
        ("val_mse", "mean squared error"),
        ("mean_absolute_error", "mean absolute error"),
        ("binary_accuracy", "binary accuracy"),
        ("acc", "accuracy"),
    ],
)
def test_a_metric_reads_as_words_with_its_unit_under_a_title_of_ones_own(metric, words):
    axes = plot_history({metric: [1.0]}, metric, unit="1,000 dollars")
    assert axes.get_ylabel() == f"{words} (1,000 dollars)"
    assert axes.get_title() == f"{words.capitalize()} over the epochs"
    assert plot_history({metric: [1.0]}, metric, title="Boston").get_title() == "Boston"
    folds = [{f"val_{metric.removeprefix('val_')}": [1.0]}]
    assert plot_folds(folds, metric, unit="s", title="Folds").get_ylabel() == f"{words} (s)"
    assert plot_folds(folds, metric, title="Folds").get_title() == "Folds"


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 20, 33, 500])
@pytest.mark.parametrize("draw", [plot_history, lambda curves: plot_folds([curves])])
def test_ticks_are_whole_numbers_from_one(draw, epochs):
    axes = draw({"loss": [1.0] * epochs, "val_loss": [2.0] * epochs})
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks[0] == 1
    assert all(tick == int(tick) for tick in ticks)
    assert len(ticks) == len(set(ticks)) >= min(epochs, 4)


def test_a_notebook_shows_the_figure_of_what_comes_back():
    show = DisplayFormatter().format
    cross_validation = CrossValidation(({"loss": [1.0], "val_loss": [1.0]},))
    for axes in (plot_history(CURVES), plot_folds([CURVES]), plot_folds(cross_validation)):
        assert isinstance(axes, Axes)
        assert show(axes)[0]["image/png"].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot_history(CURVES, "mae"), "must be one of loss, val_loss, acc, val_acc. Received: 'mae'"),
        (lambda: plot_history(CURVES, smooth=1), "`smooth` must be"),
        (lambda: plot_folds([CURVES], smooth=-0.1), "`smooth` must be"),
        (lambda: plot_history(CURVES, skip=3), "`skip` must leave an epoch"),
        (lambda: plot_folds([CURVES], skip=3), "`skip` must leave an epoch"),
        (lambda: plot_folds([]), "at least one"),
        (lambda: plot_folds({"a": [CURVES], "b": []}), "at least one"),
        (lambda: plot_folds({"a": keras.callbacks.History()}), "one history a fold"),
        (lambda: plot_folds([{"loss": [1.0]}]), "must be one of loss. Received: 'val_loss'"),
        (lambda: plot_folds(CURVES), r"one history a fold .*single one.*Received: {'loss'"),
        (lambda: plot_folds(keras.callbacks.History()), "one history a fold .*Received: <keras.*History"),
        (lambda: plot_folds("history.csv"), "one history a fold .*Received: 'history.csv'"),
        (lambda: plot_folds(pd.DataFrame(CURVES)), "one history a fold"),
        (lambda: plot_history(5), "must be a History, .*Received: 5"),
        (lambda: plot_history([CURVES]), "must be a History"),
        (lambda: plot_history("history.txt"), "path of a .csv or .json file. Received: 'history.txt'"),
        (lambda: plot_history("broken.json"), r"Received: 'broken.json' \(Expecting"),
        (lambda: plot_history("list.json"), "must be a History"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message, tmp_path, monkeypatch):
    (tmp_path / "history.txt").write_text("")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
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
