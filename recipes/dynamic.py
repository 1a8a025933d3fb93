"""Write a model as a class whose forward pass depends on the data: a layer applied until it settles.

Teaches   Subclassing; Python `for` and `if` on settings; three ways to write a loop that depends on
          tensors (keras.ops, tf.function, eager Python), which agree; saving such a model.
Data      Boston housing: 404 + 102 rows, 13 features, prices in thousands of dollars.
Source    Chollet, Deep Learning with Python (edition 2), section 7.2; the layer that settles: Bai,
          Kolter and Koltun, Deep Equilibrium Models, NeurIPS 2019.
Published none
Try next  --tolerance 1 or 1e-6: what becomes of the score? --way eager: and of the time? --no-skip
"""

import subprocess
import sys
from functools import partial
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from sklearn.linear_model import LinearRegression

import toolkit
from toolkit.run import Run, cli

EXPECTED = {
    "baseline_mae": (6.5, 6.6),
    "linear_mae": (3.4, 3.5),
    "test_mae": (2.2, 3.2),
    "ways_difference": (0.0, 1e-3),
    "loaded_difference": (0.0, 0.0),
}
QUICK = {"epochs": 5}
LOAD_AND_PREDICT = """
import keras, numpy, sys, recipes.dynamic  # the import registers the classes
model = keras.saving.load_model(sys.argv[1])
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), verbose=0))
"""


@keras.saving.register_keras_serializable(package="recipes")
class PriceModel(keras.Model):
    """Hidden layers, then h = tanh(x + h B) until h settles, then a price."""

    def __init__(self, hidden_layers, tolerance, skip, way, **kwargs):
        super().__init__(**kwargs)
        self.hidden = [layers.Dense(64, activation="relu") for _ in range(hidden_layers)]
        # Small weights: at first each step halves a distance, so that the loop ends.
        self.again = layers.Dense(64, use_bias=False, kernel_initializer=keras.initializers.Orthogonal(0.5))
        self.price = layers.Dense(1)
        self.settings = {"hidden_layers": hidden_layers, "tolerance": tolerance, "skip": skip, "way": way}
        loops = {"ops": self.ops_loop, "tf.function": tf.function(self.plain_loop), "eager": self.plain_loop}
        self.loop, self.tolerance, self.skip = loops[way], tolerance, skip

    def build(self, shape):  # builds every sublayer, or a loaded model would keep random weights
        for layer in (*self.hidden, self.again, self.price):
            layer.build(shape)
            shape = (shape[0], layer.units)

    def call(self, x):
        for layer in self.hidden:  # Python on settings: decided once, when the graph is made
            x = layer(x)
        h = self.loop(x, self.step(x, x), x)
        return self.price(h + x if self.skip else h)

    def step(self, x, h):
        return ops.tanh(x + self.again(h))

    def moves(self, h, before):
        return ops.max(ops.abs(h - before)) > self.tolerance

    def ops_loop(self, x, h, before):
        again = lambda h, before: (self.step(x, h), h)  # noqa: E731
        return ops.while_loop(self.moves, again, (h, before), maximum_iterations=50)[0]

    def plain_loop(self, x, h, before):  # `while tensor`: Python eagerly, AutoGraph in a tf.function
        count = 0
        while count < 50 and self.moves(h, before):
            h, before, count = self.step(x, h), h, count + 1
        return h

    def get_config(self):
        return {**super().get_config(), **self.settings}


def main(
    run: Run,
    *,
    way: Literal["ops", "tf.function", "eager"] = "ops",
    hidden_layers: int = 1,
    tolerance: float = 1e-3,
    skip: bool = True,
    epochs: int = 60,
) -> None:
    """Compare the three ways, train one of them, save it, and load it in a new process.

    Args:
        way: How the loop of the trained model is written.
        hidden_layers: Number of relu layers before the loop.
        tolerance: Change of an entry that counts as settled.
        skip: Add the loop's input to its output.
        epochs: Passes over the training rows.
    """
    # 1. Data, and the baselines: the mean price, and a linear model.
    (x, y), (x_test, y_test) = run.data.boston_housing()
    standardize = toolkit.Standardizer.fit(x)
    x, x_test = standardize(x).astype("float32"), standardize(x_test).astype("float32")
    run.score(baseline_mae=np.abs(y_test - y.mean()).mean())
    run.score(linear_mae=np.abs(y_test - LinearRegression().fit(x, y).predict(x_test)).mean())

    # 2. The three ways, from the same weights: an epoch of training, then the predictions.
    models = {each: PriceModel(hidden_layers, tolerance, skip, each) for each in ("ops", "tf.function", "eager")}
    for each, model in models.items():
        model.build(x.shape)
        model.compile(optimizer="rmsprop", loss="mse", metrics=["mae"], run_eagerly=each == "eager")
    weights, predictions = models[way].get_weights(), []
    for model in models.values():
        model.set_weights(weights)
        model.fit(x, y, shuffle=False, verbose=0)
        predictions.append(model.predict(x_test, verbose=0))
    run.score(ways_difference=np.ptp(predictions, axis=0).max())

    # 3. Train one. toolkit.fit is model.fit, one compiled call an epoch (eagerly: model.fit itself).
    model, log = models[way], keras.callbacks.CSVLogger(run.path("history.csv"))
    fit = model.fit if way == "eager" else partial(toolkit.fit, model)
    history = fit(x, y, epochs=epochs, batch_size=16, validation_split=0.2, callbacks=[log])
    toolkit.plot_history(history, "mae").figure.savefig(run.path("mae.png"))
    run.score(test_mae=model.evaluate(x_test, y_test, verbose=0, return_dict=True)["mae"])

    # 4. Save it, load it in a new process, and compare the predictions.
    toolkit.save(model, run.path("model.keras"))
    np.save(run.path("x_test.npy"), x_test)
    files = [str(run.path(name)) for name in ("model.keras", "x_test.npy", "loaded.npy")]
    subprocess.run([sys.executable, "-c", LOAD_AND_PREDICT, *files], check=True)
    prediction = model.predict(x_test, verbose=0)
    run.score(loaded_difference=np.abs(np.load(files[2]) - prediction).max())
    print(f"A test house: predicted {prediction[0, 0]:.1f}, sold for {y_test[0]:.1f}")


if __name__ == "__main__":
    cli(main)
