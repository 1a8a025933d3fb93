import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes.optimizers import OPTIMIZERS, build_model, valley, walk

CURVATURES = np.array([1.0, 50.0])


def test_the_path_follows_the_slope_of_the_valley():
    x, y = tf.Variable(-2.0), tf.Variable(0.5)
    with tf.GradientTape() as tape:
        height = valley(x, y)
    slope = np.array(tape.gradient(height, [x, y]))
    np.testing.assert_allclose(slope, CURVATURES * [-2.0, 0.5])
    start, second = walk(keras.optimizers.SGD(0.01))[:2]
    np.testing.assert_allclose(second, start - 0.01 * CURVATURES * start, rtol=1e-6)


def test_sgd_shrinks_each_direction_by_its_own_factor():
    path = walk(keras.optimizers.SGD(0.035))
    np.testing.assert_allclose(path[7], (1 - 0.035 * CURVATURES) ** 7 * path[0], rtol=1e-5)
    assert valley(*walk(keras.optimizers.SGD(0.041))[-1]) > valley(*path[0])  # beyond 2 / 50 it diverges


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_and_nesterov_walk_as_their_formulas_say(nesterov):
    name = "Nesterov" if nesterov else "momentum"
    make, rate = OPTIMIZERS[name]
    point, velocity, wanted = np.array([-5.0, 1.0]), np.zeros(2), []
    for _ in range(60):
        step = rate * CURVATURES * point
        velocity = 0.9 * velocity - step
        point = point + (0.9 * velocity - step if nesterov else velocity)
        wanted.append(point)
    np.testing.assert_allclose(walk(make(rate))[1:], wanted, atol=1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_comes_down_the_valley_at_its_rate(name):
    make, rate = OPTIMIZERS[name]
    path = walk(make(rate))
    assert path.shape == (61, 2)
    assert valley(*path[-1]) < valley(*path[0]) / 50


@pytest.mark.parametrize("name", ["momentum", "Adam"])
def test_fit_goes_on_where_it_stopped(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 784)).astype("float32"), np.arange(64) % 10
    weights = []
    for rounds in ([3], [2, 1]):
        keras.utils.set_random_seed(0)
        make, _ = OPTIMIZERS[name]
        model = build_model(make(0.001))
        for epochs in rounds:
            model.fit(x, y, epochs=epochs, shuffle=False, verbose=0)
        weights.append(np.concatenate([weight.ravel() for weight in model.get_weights()]))
    np.testing.assert_allclose(*weights, atol=1e-6)
