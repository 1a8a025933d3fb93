"""Save and load models: three kinds of model, one file format, nothing lost.

Teaches   The `.keras` file holds architecture, weights, compile settings and optimizer state, so that
          training goes on where it stopped; weights alone; architecture alone; custom objects.
Data      Boston housing: 404 + 102 rows, 13 features, prices in thousands of dollars.
Source    Chollet, Deep Learning with Python (edition 2), section 7.2; Keras guide, "Save, serialize,
          and export models".
Published none
Try next  --epochs 1: are the two still equal? Remove the line with @keras.saving: what does Keras
          say, and when?
"""

import json
import subprocess
import sys

import keras
import numpy as np
from keras import layers
from sklearn.linear_model import LinearRegression

import toolkit
from toolkit.run import Run, cli

EXPECTED = {
    "baseline_mae": (6.5, 6.6),
    "linear_mae": (3.4, 3.5),
    "test_mae": (2.3, 3.3),
    "prediction_difference": (0.0, 0.0),
    "training_difference": (0.0, 1e-5),
}
QUICK = {"epochs": 3}

# Run in a process of its own, which knows nothing but the files. The import registers the custom objects.
LOAD = """
import sys, keras, numpy as np, recipes.saving
folder = sys.argv[1]
data = np.load(folder + "/data.npz")
result = {}
for name in sys.argv[2:]:
    model = keras.saving.load_model(f"{folder}/{name}.keras")
    result[name + "_before"] = model.predict(data["x_test"], verbose=0)
    model.fit(data["x"], data["y"], epochs=2, shuffle=False, verbose=0)
    result[name + "_after"] = model.predict(data["x_test"], verbose=0)
np.savez(folder + "/loaded.npz", **result)
"""


@keras.saving.register_keras_serializable(package="recipes")
def softened(x):
    """A custom activation: x / (1 + |x|)."""
    return x / (1 + keras.ops.abs(x))


@keras.saving.register_keras_serializable(package="recipes")
class Subclassed(keras.Model):
    """The same network as a class; get_config and build are what makes it come back whole."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.price = layers.Dense(units, activation=softened), layers.Dense(1)

    def build(self, shape):
        self.hidden.build(shape)
        self.price.build((shape[0], self.hidden.units))

    def call(self, x):
        return self.price(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "units": self.hidden.units}


def build_models(columns: int) -> dict[str, keras.Model]:
    """Write one network three ways."""
    hidden, price = layers.Dense(64, activation=softened), layers.Dense(1)
    inputs = keras.Input(shape=(columns,))
    models = {
        "sequential": keras.Sequential([keras.Input(shape=(columns,)), layers.Dense(64, softened), layers.Dense(1)]),
        "functional": keras.Model(inputs, price(hidden(inputs))),
        "subclassed": Subclassed(64),
    }
    models["subclassed"].build((None, columns))
    for model in models.values():
        model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    return models


def main(run: Run, *, epochs: int = 100) -> None:
    """Train, save, load in a new process, and compare: predictions, and training that goes on.

    Args:
        epochs: Passes over the training rows before saving.
    """
    # 1. Data, and the baselines: the mean price, and a linear model.
    (x, y), (x_test, y_test) = run.data.boston_housing()
    standardize = toolkit.Standardizer.fit(x)
    x, x_test = standardize(x).astype("float32"), standardize(x_test).astype("float32")
    run.score(baseline_mae=np.abs(y_test - y.mean()).mean())
    run.score(linear_mae=np.abs(y_test - LinearRegression().fit(x, y).predict(x_test)).mean())

    # 2. Train and save. toolkit.fit is model.fit, one compiled call an epoch.
    models = build_models(x.shape[1])
    for name, model in models.items():
        toolkit.fit(model, x, y, epochs=epochs, batch_size=16, verbose=0)
