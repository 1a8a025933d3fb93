"""Small models, and classes of a user's own that come back from a file or do not."""

import os
from pathlib import Path

import keras
import numpy as np
from keras import layers


@keras.saving.register_keras_serializable(package="test_saving")
class Sound(keras.Model):
    def __init__(self, units=4, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.out, self.factor = layers.Dense(units), layers.Dense(1), factor

    def build(self, shape):
        self.hidden.build(shape)
        self.out.build((shape[0], self.hidden.units))

    def call(self, x):
        return self.factor * self.out(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "units": self.hidden.units, "factor": self.factor}


@keras.saving.register_keras_serializable(package="test_saving")
class Unbuilt(Sound):
    def build(self, shape):
        """Leave the sublayers to the first call, as the trap has it."""


@keras.saving.register_keras_serializable(package="test_saving")
class WithoutConfig(keras.Model):
    def __init__(self, scale):
        super().__init__()
        self.scale, self.out = np.asarray(scale), layers.Dense(1)

    def build(self, shape):
        self.out.build(shape)

    def call(self, x):
        return self.out(x * self.scale)


@keras.saving.register_keras_serializable(package="test_saving")
class Forgetful(Sound):
    def get_config(self):
        config = super().get_config()
        del config["factor"]
        return config


@keras.saving.register_keras_serializable(package="test_saving")
class Hiding(Sound):
    def __init__(self, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self._own = scale

    def call(self, x):
        return self._own * super().call(x)


@keras.saving.register_keras_serializable(package="test_saving")
class OwnVariable(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = keras.Variable(1.0)

    def call(self, x):
        return self.scale * x


@keras.saving.register_keras_serializable(package="test_saving")
class Sampling(keras.layers.Layer):
    """Draws at prediction, too, as a variational autoencoder does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)


@keras.saving.register_keras_serializable(package="test_saving")
class Unseeded(keras.layers.Layer):
    def call(self, x):
        return x + int.from_bytes(os.urandom(2))  # which no seed repeats


class Unregistered(layers.Dense):
    pass


def unregistered(y_true, y_pred):
    return keras.ops.mean(y_true - y_pred)


def built(cls, *args, **kwargs):
    model = cls(*args, **kwargs)
    model(np.ones((2, 3), "float32"))
    return model


def sequential(*parts, shape=(3,), **kwargs):
    return keras.Sequential([keras.Input(shape=shape, **kwargs), *parts])


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())
