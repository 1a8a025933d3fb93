from types import SimpleNamespace

import keras
import numpy as np
import pytest

import toolkit
from recipes import losses

FORMULAS = {
    **losses.QUANTITIES,
    **losses.TWO_CLASSES,
    **losses.SIGNS,
    **losses.ONE_HOT,
    **losses.INTEGERS,
}
HEADS = [[1.5, 2.5, 4.0], [0, 1, 1], [[0, 1], [1, 0]], [0, 1, 2]]


@pytest.mark.parametrize("name", ["mse", "mae", "mape", "msle", "huber", "hinge", "squared_hinge"])
def test_formulas_of_quantities_by_an_example(name):
    y, p = np.array([[1.0], [-1.0]]), np.array([[0.5], [1.5]])
    wanted = {
        "mse": (0.25 + 6.25) / 2,
        "mae": (0.5 + 2.5) / 2,
        "mape": 100 * (0.5 + 2.5) / 2,
        "huber": (0.125 + 2.0) / 2,
        "hinge": (0.5 + 2.5) / 2,
        "squared_hinge": (0.25 + 6.25) / 2,
    }
    if name == "msle":
        y, wanted["msle"] = abs(y), (np.log(2 / 1.5) ** 2 + np.log(2 / 2.5) ** 2) / 2
    assert FORMULAS[name](y, p) == pytest.approx(wanted[name])


def test_every_formula_has_the_name_that_keras_knows():
    for name in FORMULAS:
        assert keras.losses.get(name) if name == "huber" else keras.metrics.get(name)


def test_every_loss_that_head_chooses_is_explained():
    for y in HEADS:
        assert toolkit.head(y).loss in FORMULAS
    assert toolkit.head(HEADS[0], outliers=True).loss in FORMULAS


def test_a_wrong_formula_would_be_seen():
    random = np.random.default_rng(0)
    y, p = random.uniform(1, 9, size=(2, 50, 1))
    assert losses.compare({"mse": losses.QUANTITIES["mse"]}, y, p) < 1e-5
    assert losses.compare({"mse": losses.QUANTITIES["mae"]}, y, p) > 0.1


def test_integer_labels_give_what_one_hot_rows_give():
    random = np.random.default_rng(0)
    labels, p = random.integers(10, size=50), random.dirichlet(np.ones(10), size=50)
    for name, formula in losses.INTEGERS.items():
        one_hot = losses.ONE_HOT[name.removeprefix("sparse_")]
        assert formula(labels, p) == pytest.approx(one_hot(np.eye(10)[labels], p))


@pytest.mark.parametrize("label", [[1], [1, 2], [1, 1], [2, 1, 2]])
def test_ctc_is_that_of_keras(label):
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    _, loss = losses.ctc(label, np.array(keras.ops.softmax(logits)))
    assert loss == pytest.approx(float(keras.losses.CTC()(np.array([label]), logits[None])), abs=1e-5)


def test_ctc_lists_the_alignments():
    p = np.full((3, 3), 1 / 3)
    assert losses.ctc([1, 1], p)[0] == [(1, 0, 1)]  # a blank must stand between two of a kind
    paths, loss = losses.ctc([1, 2], p)
    assert sorted(paths) == [(0, 1, 2), (1, 0, 2), (1, 1, 2), (1, 2, 0), (1, 2, 2)]
    assert loss == pytest.approx(-np.log(5 / 27))


@pytest.mark.parametrize("wrong_prices", [405, 1000])
def test_wrong_prices_that_cannot_be_are_refused_before_any_work(wrong_prices):
    with pytest.raises(ValueError, match=f"`wrong_prices` must be .* Received: {wrong_prices}$"):
        losses.main(SimpleNamespace(data=toolkit.Data("sample"), seed=0), wrong_prices=wrong_prices)
