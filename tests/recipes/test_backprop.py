import keras
import numpy as np
import pytest

from recipes import backprop


@pytest.fixture
def problem():
    random = np.random.default_rng(0)
    weights = [random.normal(size=shape).astype("float32") / 4 for shape in ((7, 5), 5, (5, 10), 10)]
    return weights, random.normal(size=(300, 7)).astype("float32"), random.integers(10, size=300)


def test_the_gradients_are_the_slopes_of_the_loss(problem):
    weights, x, y = problem
    weights = [weight.astype("float64") for weight in weights]
    _, gradients = backprop.backward(weights, x.astype("float64"), y)
    for weight, gradient in zip(weights, gradients, strict=True):
        for index in list(np.ndindex(weight.shape))[::7]:
            middle, losses = weight[index], []
            for weight[index] in (middle - 1e-5, middle + 1e-5):
                losses.append(backprop.backward(weights, x, y)[0])
            weight[index] = middle
            assert (losses[1] - losses[0]) / 2e-5 == pytest.approx(gradient[index], abs=1e-6)


@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov"])
def test_each_rule_is_that_of_keras(problem, rule):
    weights, x, y = problem
    momentum = 0.0 if rule == "sgd" else 0.9
    variables = [keras.Variable(weight) for weight in weights]
    optimizer = keras.optimizers.SGD(0.1, momentum, nesterov=rule == "nesterov")
    for start in range(0, 300, 128):
        rows = slice(start, start + 128)
        _, gradients = backprop.backward([np.array(each) for each in variables], x[rows], y[rows])
        optimizer.apply(list(map(keras.ops.convert_to_tensor, gradients)), variables)
    for ours, theirs in zip(backprop.train(rule, weights, x, y, momentum)[0], variables, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_nesterov_keeps_the_point_ahead_and_the_notes_climb(problem):
    losses = {
        rule: backprop.train(rule, problem[0], *(np.tile(each.T, 9).T for each in problem[1:]), 0.9)[1]
        for rule in ("momentum", "nesterov", "look-ahead", "notes")
    }
    np.testing.assert_allclose(losses["nesterov"], losses["look-ahead"], atol=1e-5)
    assert not np.allclose(losses["nesterov"], losses["momentum"], atol=1e-3)
    assert losses["notes"][-1] > losses["notes"][0] + 0.5
    assert losses["nesterov"][-1] < losses["nesterov"][0]


def test_training_leaves_the_first_weights_alone(problem):
    before = [weight.copy() for weight in problem[0]]
    backprop.train("momentum", *problem, 0.9)
    for one, other in zip(before, problem[0], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 2.0])
def test_a_momentum_that_cannot_be_is_refused_before_any_work(momentum):
    with pytest.raises(ValueError, match=f"`momentum` must be .* Received: {momentum}$"):
        backprop.main(None, momentum=momentum)
