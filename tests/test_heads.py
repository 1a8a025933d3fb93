import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit import head


@pytest.mark.parametrize(
    ("y", "wanted"),
    [
        ([0, 1, 1], (1, "sigmoid", "binary_crossentropy", "accuracy")),
        ([0.0, 1.0], (1, "sigmoid", "binary_crossentropy", "accuracy")),
        ([True, False], (1, "sigmoid", "binary_crossentropy", "accuracy")),
        ([[0], [1]], (1, "sigmoid", "binary_crossentropy", "accuracy")),
        ([0, 2, 1], (3, "softmax", "sparse_categorical_crossentropy", "accuracy")),
        (np.eye(4), (4, "softmax", "categorical_crossentropy", "accuracy")),
        (np.eye(2), (2, "softmax", "categorical_crossentropy", "accuracy")),
        ([[0, 1, 1], [1, 0, 0]], (3, "sigmoid", "binary_crossentropy", "binary_accuracy")),
        ([15.2, 42.3, 50.0], (1, None, "mse", "mae")),
        ([1.0, 2.0, 3.0], (1, None, "mse", "mae")),
        ([[1.5, 2.0], [0.1, 9.0]], (2, None, "mse", "mae")),
    ],
    ids=str,
)
def test_the_rule(y, wanted):
    choice = head(y)
    assert (choice.units, choice.activation, choice.loss, choice.metric) == wanted
    assert choice.reason in str(choice)


def test_outliers_ask_for_huber():
    assert head([1.5, 2.0, 900.0], outliers=True).loss == "huber"
    assert "outliers" in str(head([1.5, 2.0, 900.0], outliers=True))


@given(st.sampled_from([[0, 1], [0, 1, 2], [0.5, 1.5, 2.5], [[1, 0], [0, 1]], [[1, 1, 0], [0, 1, 0]]]))
@settings(deadline=None, max_examples=5)
def test_keras_trains_with_what_it_chose(y):
    y = np.array(y)
    choice = head(y)
    model = keras.Sequential([keras.Input(shape=(3,)), choice.layer()])
    model.compile(loss=choice.loss, metrics=[choice.metric])
    history = model.fit(np.ones((len(y), 3)), y, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert choice.metric in history.history


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([], "must hold numbers"),
        (["a", "b"], "LabelEncoder"),
        ([[[1]]], "must hold numbers"),
        ([1.0, float("nan")], "must be finite. Received: nan in row 1"),
        ([[1.0, 2.0], [1.0, float("inf")]], "must be finite. Received: inf in row 1, column 1"),
        ([3, 3, 3], "at least two different values. Received: 3"),
        ([1, 2], "must be 0 and 1. Received: 1 and 2"),
        ([-1.0, 1.0], "must be 0 and 1"),
        ([1, 2, 3], "class labels 0, 1, 2"),
        ([0, 2, 5], "3 values from 0 to 5"),
    ],
)
def test_targets_that_fit_no_rule_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        head(y)
