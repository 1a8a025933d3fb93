import keras
import numpy as np
import pytest

from recipes.saving import Subclassed, build_functional, build_sequential
from toolkit import Data, load
from toolkit.run import Run


def test_the_three_ways_are_one_network():
    models = [build_sequential(3), build_functional(3), Subclassed(64)]
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    for model in models:
        model.build((None, 3))
        model.set_weights(models[0].get_weights())
        np.testing.assert_allclose(model(x), models[0](x), rtol=1e-6)


def test_a_model_that_fails_to_build_a_sublayer_would_be_noticed(tmp_path):
    """The guard of the lesson is red when a class comes back with other weights."""

    class Forgetful(Subclassed):
        def build(self, shape):
            """Leave the sublayers to be built by the first call, as the trap has it."""

    run = Run("saving", tmp_path, Data("sample"), 0, {}, True)
    keras.saving.get_custom_objects()["Forgetful"] = Forgetful
    try:
        x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
        model = Forgetful(4)
        wanted = model(x)
        sound = Subclassed(4)
        sound.build(x.shape)
        for each, name in ((sound, "sound"), (model, "forgetful")):
            each.save(tmp_path / f"{name}.keras")
        (loaded,) = run.predict_elsewhere([tmp_path / "sound.keras"], x)
        np.testing.assert_array_equal(loaded, sound.predict(x, verbose=0))
        assert not np.allclose(keras.saving.load_model(tmp_path / "forgetful.keras")(x), wanted)  # not a word
        with pytest.raises(ValueError, match=r"differ: /hidden/vars/0"):
            load(tmp_path / "forgetful.keras")
    finally:
        del keras.saving.get_custom_objects()["Forgetful"]
