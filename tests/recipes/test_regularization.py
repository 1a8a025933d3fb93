import keras
import numpy as np
import pytest
from keras import regularizers

from recipes.regularization import build_model

X = np.random.default_rng(0).integers(0, 2, size=(64, 5000), dtype="uint8")
Y = np.arange(64).reshape(-1, 1) % 2


def scores(model):
    return model.evaluate(X, Y, batch_size=64, verbose=0, return_dict=True)


def test_without_a_cure_the_loss_is_the_cross_entropy():
    plain = scores(build_model(4))
    assert plain["loss"] == pytest.approx(plain["binary_crossentropy"], rel=1e-6)


@pytest.mark.parametrize(
    ("penalty", "total"),
    [(regularizers.L1(0.01), lambda w: 0.01 * np.abs(w)), (regularizers.L2(0.02), lambda w: 0.02 * w**2)],
)
def test_a_penalty_on_weights_is_in_the_loss_and_not_in_the_metric(penalty, total):
    model = build_model(4, weights=penalty)
    kernels = [layer.kernel.numpy() for layer in model.layers if isinstance(layer, keras.layers.Dense)][:2]
    wanted = sum(total(kernel).sum() for kernel in kernels)
    found = scores(model)
    assert found["loss"] - found["binary_crossentropy"] == pytest.approx(wanted, rel=1e-4)


def test_a_penalty_on_biases_is_in_the_loss_and_concerns_few_numbers():
    model = build_model(16, biases=regularizers.L2(0.02))
    hidden = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][:2]
    for layer in hidden:
        layer.bias.assign(np.linspace(-1, 1, 16))
    wanted = sum(0.02 * (layer.bias.numpy() ** 2).sum() for layer in hidden)
    found = scores(model)
    assert found["loss"] - found["binary_crossentropy"] == pytest.approx(wanted, rel=1e-4)
    assert hidden[0].kernel.shape == (5000, 16)  # the 80,000 weights that the lesson speaks of


def test_a_penalty_on_activations_counts_a_row_and_not_the_batch():
    model = build_model(4, activity=regularizers.L2(0.02))
    outputs = [layer.output for layer in model.layers if isinstance(layer, keras.layers.Activation)]
    activations = keras.Model(model.inputs[0], outputs)(X)
    wanted = sum(0.02 * (np.asarray(each) ** 2).sum() / len(X) for each in activations)
    found = scores(model)
    assert found["loss"] - found["binary_crossentropy"] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("noise_shape", [None, (None, 1)])
def test_dropout_scales_what_it_keeps_repeats_with_its_seed_and_shares_a_coin_along_noise_shape(noise_shape):
    models = [build_model(4, rate=0.75, noise_shape=noise_shape) for _ in range(2)]
    first, second = ([each for each in model.layers if "dropout" in each.name] for model in models)
    ones = np.ones((200, 4), "float32")
    masks = [np.asarray(layer(ones, training=True)) for layer in (first[0], second[0], first[1])]
    assert set(np.unique(masks[0])) == {0, 4}  # so that the mean stays 1
    np.testing.assert_array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    assert (np.ptp(masks[0], axis=1) == 0).all() == (noise_shape is not None)
    np.testing.assert_array_equal(first[0](ones, training=False), ones)
