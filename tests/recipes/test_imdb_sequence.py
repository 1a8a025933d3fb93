import numpy as np
import pytest

from recipes.imdb_sequence import build_model

CELLS = ("pooling", "rnn", "lstm", "gru")
REVIEW = np.random.default_rng(0).integers(1, 10_000, size=(3, 7))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_padding_changes_nothing_for_it_is_masked(cell, bidirectional):
    model = build_model(cell, bidirectional)
    padded = np.pad(REVIEW, ((0, 0), (5, 0)))
    np.testing.assert_allclose(model(REVIEW), model(padded), rtol=1e-5, atol=1e-6)
    unmasked = np.pad(REVIEW, ((0, 0), (5, 0)), constant_values=1)
    assert not np.allclose(model(REVIEW), model(unmasked), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_only_pooling_does_not_see_the_order(cell):
    model = build_model(cell, False)
    same = np.allclose(model(REVIEW), model(REVIEW[:, ::-1]), rtol=1e-5, atol=1e-6)
    assert same == (cell == "pooling")


@pytest.mark.parametrize(("cell", "gates", "more"), [("rnn", 1, 0), ("lstm", 4, 0), ("gru", 3, 3 * 32)])
def test_a_cell_has_a_matrix_for_each_gate_and_two_directions_have_twice_as_many(cell, gates, more):
    words, one = 10_000 * 32, gates * (32 * 32 + 32 * 32 + 32) + more  # a GRU has two biases a gate
    assert build_model(cell, False).count_params() == words + one + 32 + 1
    assert build_model(cell, True).count_params() == words + 2 * one + 64 + 1
