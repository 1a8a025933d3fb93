"""Write a model as a class whose forward pass depends on the data: a layer applied until it settles.

Teaches   Subclassing; Python `for` and `if` on settings; three ways to write a loop that depends on
          tensors (keras.ops, tf.function, eager Python), which agree; saving such a model.
Data      Boston housing: 404 + 102 rows, 13 features, prices in thousands of dollars.
Source    Chollet, Deep Learning with Python (edition 2), section 7.2; Bai et al., NeurIPS 2019.
Takes     24 s
Try next  --tolerance 1 or 1e-6: what becomes of the score, and of the time? --hidden-layers 3
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from sklearn.linear_model import LinearRegression

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: test_mae 2.59 to 3.08.
EXPECTED = {"ways_difference": (0, 1e-3), "test_mae": (2.4, 3.3), "loaded_difference": (0, 0)}
QUICK = {"epochs": 5}


@keras.saving.register_keras_serializable(package="recipes")
class PriceModel(keras.Model):  # h = tanh(x + h B) until h settles (B starts small, so it does)
    def __init__(self, hidden_layers, tolerance, way, **kwargs):
        super().__init__(**kwargs)
        self.hidden = [layers.Dense(64, activation="relu") for _ in range(hidden_layers)]
        self.again = layers.Dense(64, use_bias=False, kernel_initializer=keras.initializers.Orthogonal(0.5))
        self.price, self.tolerance, self.way = layers.Dense(1), tolerance, way

    def build(self, shape):  # builds every sublayer, or a loaded model would keep random weights
        for layer in (*self.hidden, self.again, self.price):
            layer.build(shape)
            shape = (shape[0], layer.units)

    def get_config(self):
        return {"hidden_layers": len(self.hidden), "tolerance": self.tolerance, "way": self.way}

    def moves(self, h, before):
        return ops.max(ops.abs(h - before)) > self.tolerance

    def loop(self, step, h, before, count=0):  # plain Python; in a tf.function AutoGraph translates it
        while count < 50 and self.moves(h, before):
            (h, before), count = step(h, before), count + 1
        return h

    def call(self, x):
        for layer in self.hidden:  # `for` and `if` on settings: decided once, when the graph is made
            x = layer(x)
        step = lambda h, before: (ops.tanh(x + self.again(h)), h)  # noqa: E731
        if self.way == "ops":
            h, _ = ops.while_loop(self.moves, step, step(x, x), maximum_iterations=50)
        else:
            h = (self.loop if self.way == "eager" else tf.function(self.loop))(step, *step(x, x))
        return self.price(h)


def main(run: Run, *, hidden_layers: int = 1, tolerance: float = 1e-3, epochs: int = 60) -> None:
    """Train the model, write its loop three ways, save it, and load it in a new process.

    Args:
        hidden_layers: Number of relu layers before the loop.
        tolerance: Change of an entry that counts as settled.
        epochs: Passes over the training rows.
    """
    # 1. Data, and the baselines: the mean price, and a linear model.
    (x, y), (x_test, y_test) = run.data.boston_housing()
    standardize = toolkit.Standardizer.fit(x)
    x, x_test = standardize(x), standardize(x_test)
    linear = LinearRegression().fit(x, y).predict(x_test)
    run.score(baseline_mae=np.abs(y_test - y.mean()).mean(), linear_mae=np.abs(y_test - linear).mean())

    # 2. The three ways, from the same weights: after an epoch of training they predict the same.
    models = {way: PriceModel(hidden_layers, tolerance, way) for way in ("ops", "tf.function", "eager")}
    weights, predictions = [], []
    for way, model in models.items():
        model.build(x.shape)
        model.set_weights(weights := weights or model.get_weights())
        model.compile(optimizer="rmsprop", loss="mse", metrics=["mae"], run_eagerly=way == "eager")
        model.fit(x, y, shuffle=False, verbose=0)
        predictions.append(model.predict(x_test, verbose=0))
    run.score(ways_difference=np.ptp(predictions, axis=0).max())

    # 3. Train one, and keep its best weights. toolkit.fit is model.fit, one compiled call an epoch.
    best = keras.callbacks.EarlyStopping("val_mae", patience=epochs, restore_best_weights=True)
    model, watch = models["ops"], {"validation_split": 0.2, "callbacks": [run.log(), best]}
    history = toolkit.fit(model, x, y, epochs=epochs, batch_size=16, checkpoint=run.keep(), **watch)
    run.figure("mae.png", toolkit.plot_history(history, "mae"))
    run.score(test_mae=model.evaluate(x_test, y_test, verbose=0, return_dict=True)["mae"])

    # 4. Save it, load it in a new process: the predictions are exactly the same.
    path, prediction = toolkit.save(model, run.path("model.keras")), model.predict(x_test, verbose=0)
    run.score(loaded_difference=np.ptp([prediction, *run.predict_elsewhere([path], x_test)], axis=0).max())
    print(f"A test house: predicted {prediction[0, 0]:.1f}, sold for {y_test[0]:.1f}")


if __name__ == "__main__":
    cli(main)
