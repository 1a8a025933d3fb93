from types import SimpleNamespace

import keras
import numpy as np
import pytest

import toolkit
from recipes.transfer import (
    accuracies,
    build_body,
    main,
    select,
    take_over,
    train_frozen,
    train_unfrozen,
)

RNG = np.random.default_rng(0)
X = RNG.random((40, 784)).astype("float32")
Y = np.arange(40) % 2
SPLITS = [(np.arange(20), None), (np.arange(20, 40), None)]


@pytest.fixture
def body():
    keras.utils.set_random_seed(0)
    return build_body()


def test_a_net_begins_with_the_features_of_the_body_and_does_not_share_its_weights(body):
    net = take_over(body)
    np.testing.assert_array_equal(net.layers[0](X), body(X))
    net.layers[0].set_weights([weight + 1 for weight in net.layers[0].get_weights()])
    assert not np.allclose(net.layers[0](X), body(X))


def test_frozen_bodies_stay_and_unfrozen_ones_adapt_to_their_own_draws(body):
    before = body.get_weights()
    nets = train_frozen(body, X, Y, SPLITS, epochs=2)
    outputs = [net.layers[1].get_weights() for net in nets]
    for net in nets:
        for weight, old in zip(net.layers[0].get_weights(), before, strict=True):
            np.testing.assert_array_equal(weight, old)
    assert not np.array_equal(outputs[0][0], outputs[1][0])

    train_unfrozen(nets, X, Y, SPLITS, epochs=2)
    first, second = (net.layers[0].get_weights() for net in nets)
    for one, other, old in zip(first, second, before, strict=True):
        assert not np.array_equal(one, old)
        assert not np.array_equal(one, other)
    for weight, old in zip(body.get_weights(), before, strict=True):  # what was taken over is a copy
        np.testing.assert_array_equal(weight, old)


def test_without_a_second_compile_an_unfrozen_body_would_stay_as_it_is(body):
    net = take_over(body)
    net.layers[0].trainable = False
    net.compile(optimizer="adam", loss="binary_crossentropy")
    net.fit(X, Y, verbose=0)
    net.layers[0].trainable = True
    net.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(net.layers[0](X), body(X))
    net.compile(optimizer="adam", loss="binary_crossentropy")
    net.fit(X, Y, verbose=0)
    assert not np.allclose(net.layers[0](X), body(X))


def test_accuracies_are_the_shares_of_right_answers(body):
    nets = train_frozen(body, X, Y, SPLITS, epochs=1)
    wanted = [np.mean((net.predict(X, verbose=0)[:, 0] > 0.5) == Y) for net in nets]
    np.testing.assert_allclose(accuracies(nets, X, Y), wanted, atol=1e-6)


def test_chosen_classes_keep_their_images_and_count_from_0():
    images, labels = RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8), np.array([9, 5, 6, 0, 6, 5])
    x, y = select(images, labels, [5, 6])
    assert (x.shape, x.dtype, y.tolist()) == ((4, 784), "float32", [0, 1, 1, 0])
    np.testing.assert_array_equal((x * 255).round(), images[[1, 2, 4, 5]].reshape(4, 784))


@pytest.mark.parametrize("labels", [1, 19, 10**8])
def test_labels_that_cannot_be_are_refused_before_any_work(labels):
    with pytest.raises(ValueError, match=f"`labels` must be .* Received: {labels}$"):
        main(SimpleNamespace(data=toolkit.Data("sample"), seed=0), labels=labels)
