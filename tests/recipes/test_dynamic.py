import keras
import numpy as np
import pytest

from recipes.dynamic import PriceModel

X = np.random.default_rng(0).normal(size=(16, 13)).astype("float32")


def built(way, tolerance, weights=None):
    model = PriceModel(hidden_layers=1, tolerance=tolerance, way=way)
    model.build(X.shape)
    if weights:
        model.set_weights(weights)
    model.compile(run_eagerly=way == "eager")
    return model


@pytest.mark.parametrize("tolerance", [1e-1, 1e-5])
def test_the_three_ways_give_the_same_prices(tolerance):
    wanted = built("ops", tolerance)
    for way in ("tf.function", "eager"):
        found = built(way, tolerance, wanted.get_weights()).predict(X, verbose=0)
        np.testing.assert_allclose(found, wanted.predict(X, verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settle", ["settle", "settle_by_ops"])
def test_what_has_settled_solves_its_equation_and_a_coarse_tolerance_stops_sooner(settle):
    errors = []
    for tolerance in (1e-6, 1.0):
        keras.utils.set_random_seed(0)
        model = built("eager", tolerance)
        x = model.hidden[0](X)
        h = getattr(model, settle)(x)
        errors.append(float(keras.ops.max(keras.ops.abs(h - model.step(x, h)))))
    assert errors[0] < 1e-5 < errors[1]


def test_a_loop_that_never_settles_ends_alike():
    models = [built("ops", -1.0)]
    models.append(built("eager", -1.0, models[0].get_weights()))
    first, second = (model.predict(X, verbose=0) for model in models)
    np.testing.assert_allclose(first, second, rtol=1e-5)
