import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from toolkit import plot_history
from toolkit.drawing import draw_costs, draw_graph, draw_regions, draw_spread, draw_steps, mark_epoch, square


def boxes_and_arrows(axes):
    """Return the place of each box by its text, and the (source, target) of each arrow, by the same texts."""
    boxes = {text.get_text(): text.get_position() for text in axes.texts if text.get_text()}
    name_at = {place: name for name, place in boxes.items()}
    arrows = [(name_at[text.xyann], name_at[text.xy]) for text in axes.texts if not text.get_text()]
    return boxes, sorted(arrows)


def test_every_layer_is_a_box_below_its_feeds_and_every_tensor_an_arrow():
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    shared = keras.layers.Dense(3, name="shared")
    both = keras.layers.Concatenate(name="both")([shared(left), shared(right)])
    added = keras.layers.Add(name="added")([keras.layers.Dense(3, name="deep")(both), left])
    axes = draw_graph(keras.Model([left, right], added))
    boxes, arrows = boxes_and_arrows(axes)
    twice = "shared (called 2 times)"
    assert set(boxes) == {"left", "right", twice, "both", "deep", "added"}
    assert len(set(boxes.values())) == len(boxes)
    edges = [("left", twice), ("right", twice), (twice, "both"), (twice, "both"), ("both", "deep")]
    assert arrows == sorted([*edges, ("deep", "added"), ("left", "added")])
    assert all(boxes[source][1] < boxes[target][1] for source, target in arrows)


def test_two_arrows_between_the_same_boxes_do_not_cover_each_other():
    inputs = keras.Input((3,), name="inputs")
    shared = keras.layers.Dense(3, name="shared")
    outputs = keras.layers.Add(name="added")([shared(inputs), shared(inputs)])
    axes = draw_graph(keras.Model(inputs, outputs))
    styles = [text.arrowprops["connectionstyle"] for text in axes.texts if not text.get_text()]
    assert len(styles) == 4
    assert len(set(styles)) == 2


def test_an_arrow_goes_around_a_box_that_stands_in_its_way():
    inputs = keras.Input((3,), name="inputs")
    deep = keras.layers.Dense(3, name="deep")(inputs)
    axes = draw_graph(keras.Model(inputs, keras.layers.Add(name="added")([inputs, deep])))
    bends = {
        (text.xyann[1], text.xy[1]): text.arrowprops["connectionstyle"]
        for text in axes.texts
        if not text.get_text()
    }
    assert bends[0, 1] == bends[1, 2] == "arc3,rad=0.0"
    assert bends[0, 2] != "arc3,rad=0.0"


@pytest.mark.parametrize("model", [keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])])
def test_a_model_without_a_graph_is_refused(model):
    with pytest.raises(ValueError, match=r"must be a functional model. Received: Sequential"):
        draw_graph(model)

    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match="Received: Subclassed"):
        draw_graph(Subclassed())


@pytest.mark.parametrize("epochs", [9, 10, 100])
def test_the_chosen_epoch_is_marked_and_named_and_ticks_are_round_numbers(epochs):
    axes = plot_history({"loss": [0.5] * epochs, "val_loss": [0.5] * epochs})
    mark_epoch(axes, 7, "lowest validation loss")
    *_, line = axes.get_lines()
    assert list(line.get_xdata()) == [7, 7]
    assert "lowest validation loss: epoch 7" in [text.get_text() for text in axes.get_legend().get_texts()]
    axes.figure.draw_without_rendering()
    first, *others = [tick for tick in axes.get_xticks() if 0 <= tick <= epochs]
    assert first == 1
    (step,) = set(np.diff(others))
    assert step in (1, 2, 10, 20)


def test_a_single_epoch_has_a_single_tick():
    axes = plot_history({"loss": [0.5], "val_loss": [0.5]})
    mark_epoch(axes, 1)
    axes.figure.draw_without_rendering()
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_the_color_of_a_place_is_the_answer_there():
    axes = Figure().subplots()
    plane = square(-1, 1, side=5)
    draw_regions(axes, plane, plane[:, 0] > 0, [[-1.0, 0.5], [1.0, 0.5], [0.0, 1.0]], [0, 1, 1])
    (image,) = axes.get_images()
    assert image.origin == "lower"
    assert image.get_extent() == [-1, 1, -1, 1]
    np.testing.assert_array_equal(image.get_array(), [[0, 0, 0, 1, 1]] * 5)
    zeros, ones = axes.get_lines()
    assert (zeros.get_xydata().tolist(), zeros.get_label()) == ([[-1.0, 0.5]], "0")
    assert (ones.get_xydata().tolist(), ones.get_label()) == ([[1.0, 0.5], [0.0, 1.0]], "1")


def test_answers_that_do_not_fit_the_plane_are_refused():
    with pytest.raises(ValueError, match=r"Received: shapes \(3,\) and \(4, 2\)"):
        draw_regions(Figure().subplots(), square(0, 1, side=2), [0, 1, 1], [[0, 0]], [0])
    with pytest.raises(ValueError, match="a square `plane`"):
        draw_regions(Figure().subplots(), square(0, 1, side=2)[:3], [0, 1, 1], [[0, 0]], [0])


def test_steps_count_from_one_and_what_would_hide_another_curve_is_dashed():
    curves = {"first": [8.0, 4.0, 2.0], "same": [8.0, 4.0, 2.001], "other": [8.0, 4.0, 2.5], "short": [8.0]}
    axes = draw_steps(curves)
    assert axes.get_yscale() == "log"
    for line, (name, curve) in zip(axes.get_lines(), curves.items(), strict=True):
        assert line.get_label() == name
        assert line.get_xydata().tolist() == [[step, value] for step, value in enumerate(curve, 1)]
        assert line.get_linestyle() == ("--" if name == "same" else "-")


def test_a_spread_has_a_point_for_each_score_and_a_mark_at_the_mean():
    axes = draw_spread({"one": np.array([0.1, 0.2]), "other": [0.3, 0.5, 0.7]}, of="draw")
    points, means = axes.get_lines()[::2], axes.get_lines()[1::2]
    assert [line.get_xdata().tolist() for line in points] == [[0.1, 0.2], [0.3, 0.5, 0.7]]
    assert [line.get_ydata().tolist() for line in points] == [[0, 0], [1, 1, 1]]
    assert [line.get_ydata().tolist() for line in means] == [[0], [1]]
    np.testing.assert_allclose([line.get_xdata()[0] for line in means], [0.15, 0.5])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "other"]
    (legend,) = axes.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one draw", "mean of the draws"]


def test_costs_have_a_line_for_each_way_and_number_of_rows():
    cases = [(200, 16), (200, 128), (2000, 16)]
    ax = draw_costs(cases, [(1, 4), (2, 5), (3, 6)], ["alone", "together"], data="Digits")
    assert ax.get_title() == "Digits: what a step costs"
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert drawn == {
        "200 rows a step, alone": [[16, 1], [128, 2]],
        "200 rows a step, together": [[16, 4], [128, 5]],
        "2000 rows a step, alone": [[16, 3]],
        "2000 rows a step, together": [[16, 6]],
    }
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.get_lines()}) == 4
