import keras
import numpy as np
import pytest
from scipy.signal import correlate2d

from recipes.mnist_cnn import build_model, draw_filters

IMAGES = np.random.default_rng(0).integers(0, 256, size=(2, 28, 28, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    return build_model(batch_normalization=True, dropout=0.5)


def up_to(model, name):
    return keras.Model(model.inputs, model.get_layer(name).output)


def test_a_convolution_lays_its_filter_on_every_other_place(model):
    kernel = model.get_layer("first").get_weights()[0][:, :, 0]
    maps = up_to(model, "first").predict(IMAGES, verbose=0)
    assert maps.shape == (2, 12, 12, 16)
    for number in (0, 15):
        wanted = correlate2d(IMAGES[1, :, :, 0] / 255, kernel[..., number], mode="valid")[::2, ::2]
        np.testing.assert_allclose(maps[1, ..., number], wanted, rtol=1e-3, atol=1e-4)


def test_pooling_keeps_the_largest_of_four(model):
    before = up_to(model, "second_maps").predict(IMAGES, verbose=0)
    (pooling,) = (layer for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D))
    height, width, channels = before.shape[1:]
    wanted = before.reshape(2, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
    np.testing.assert_array_equal(up_to(model, pooling.name).predict(IMAGES, verbose=0), wanted)


def test_a_stroke_that_moves_by_the_stride_moves_the_map_and_changes_nothing_else(model):
    image = np.zeros((1, 28, 28, 1), np.uint8)
    image[0, 8:16, 8:16] = IMAGES[0, 8:16, 8:16]
    moved = np.roll(image, 4, axis=1)
    maps, others = (up_to(model, "first_maps").predict(each, verbose=0) for each in (image, moved))
    assert maps.max() > 0
    np.testing.assert_allclose(np.roll(maps, 2, axis=1), others, rtol=1e-4, atol=1e-5)


def test_dropout_and_batch_normalization_act_in_training_only(model):
    np.testing.assert_array_equal(model(IMAGES, training=False), model(IMAGES, training=False))
    assert not np.allclose(model(IMAGES, training=True), model(IMAGES, training=True))
    names = [type(layer).__name__ for layer in build_model(False, 0.5).layers]
    assert "BatchNormalization" not in names
    assert sum(type(layer).__name__ == "BatchNormalization" for layer in model.layers) == 3


def test_the_figure_shows_each_filter_above_its_map():
    model = build_model(batch_normalization=True, dropout=0.5)
    kernel = abs(model.get_layer("first").get_weights()[0])  # white must still stand for 0
    model.get_layer("first").set_weights([kernel])
    maps = up_to(model, "first_maps").predict(IMAGES[:1], verbose=0)
    axes = draw_filters(model, IMAGES[0]).axes
    assert len(axes) == 16
    for number in range(8):
        above, below = axes[number].images[0], axes[8 + number].images[0]
        np.testing.assert_allclose(above.get_array(), kernel[:, :, 0, number])
        np.testing.assert_allclose(below.get_array(), maps[0, ..., number], rtol=1e-4, atol=1e-6)
        low, high = above.get_clim()
        assert -low == high == kernel.max()
