"""Write a model as a class whose forward pass depends on data: a layer applied until it settles.

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
# A short run to check that everything works; its scores mean nothing.
QUICK = {"epochs": 5}


# A model is loaded by the name of its class, which Keras has to know: this line registers it.
@keras.saving.register_keras_serializable(package="recipes")
class PriceModel(keras.Model):
    """Layers; then one layer, applied again and again until its output h settles; then a price."""

    def __init__(self, hidden_layers: int, tolerance: float, way: str, **kwargs):
        super().__init__(**kwargs)  # Keras passes `name` and the like when it loads a model
        self.tolerance = tolerance
        self.way = way
        self.hidden = [layers.Dense(units=64, activation="relu") for _ in range(hidden_layers)]
        # An orthogonal matrix keeps the length of h, and with this gain it halves that. So before
        # training each change of h is at most half as large as the one before, and h settles.
        # (There is no bias, because `step` adds x in its place.)
        small = keras.initializers.Orthogonal(gain=0.5)
        self.again = layers.Dense(units=64, use_bias=False, kernel_initializer=small)
        self.price = layers.Dense(units=1)

    def build(self, input_shape):
        """Make the weights of every layer, for loading to put the saved numbers into them."""
        shape = input_shape
        for layer in [*self.hidden, self.again, self.price]:
            layer.build(shape)
            shape = (input_shape[0], layer.units)

    def get_config(self):
        """Return the arguments of __init__: with them, loading makes the model again."""
        return {
            "hidden_layers": len(self.hidden),
            "tolerance": self.tolerance,
            "way": self.way,
        }

    def call(self, x):
        # In `fit` Python runs this at first only, with tensors that have a shape but no numbers
        # yet. TensorFlow writes down the operations. This list is the graph, and the graph is what
        # runs for every batch, without Python.
        # Settings are plain Python values: `for` and `if` on them are decided in that first run.
        for layer in self.hidden:
            x = layer(x)  # (batch, 64)
        if self.way == "ops":
            h = self.settle_by_ops(x)
        elif self.way == "tf.function":
            # tf.function makes a graph of a function, after its AutoGraph has rewritten the Python
            # code: a `while` that asks a tensor becomes an operation that loops within the graph.
            # Keras makes its own graphs without AutoGraph, so it has to be asked for here.
            h = tf.function(self.settle)(x)
        else:
            # A plain `while` asks Python for a yes or no, which a tensor without numbers cannot
            # give. It works only where no graph is made: with run_eagerly=True.
            h = self.settle(x)
        return self.price(h)  # (batch, 1)

    def step(self, x, h):
        """Apply the layer once: x, h and the answer are (batch, 64)."""
        return ops.tanh(x + self.again(h))

    def moves(self, h, before):
        """Tell whether some entry of some row has changed by more than the tolerance.

        The answer is a tensor, True or False: it depends on the data.
        """
        return ops.max(ops.abs(h - before)) > self.tolerance

    def settle(self, x):
        """The loop as one would write it in Python."""
        before = x
        h = self.step(x, before)
        count = 1
        while count <= 50 and self.moves(h, before):  # at most 50 times more, if it never settles
            before = h
            h = self.step(x, before)
            count += 1
        return h

    def settle_by_ops(self, x):
        """The same loop as one operation, which may stand in a graph: its parts are functions."""

        # while_loop gives the variables of the loop, here h and before, to two functions: cond says
        # whether to go on, and body returns their next values.
        def once_more(h, before):
            return self.step(x, h), h

        h, _ = ops.while_loop(
            cond=self.moves,
            body=once_more,
            loop_vars=(self.step(x, x), x),
            maximum_iterations=50,
        )
        return h


def main(run: Run, *, hidden_layers: int = 1, tolerance: float = 1e-3, epochs: int = 60) -> None:
    """Train the model, write its loop three ways, save it, and load it in a new process.

    Args:
        hidden_layers: Number of relu layers before the loop.
        tolerance: Change of an entry that counts as settled.
        epochs: Passes over the training rows.
    """
    # 1. Data. Each column is scaled to mean 0 and deviation 1, as the training rows have them.
    (x, y), (x_test, y_test) = run.data.boston_housing()  # x: (404, 13), y: (404,)
    standardize = toolkit.Standardizer.fit(x)
    x = standardize(x)
    x_test = standardize(x_test)

    # 2. Baselines: guess the mean price every time, and a linear model. (run.score prints a score,
    #    beside the range in which it is expected, if it has one.)
    run.score(baseline_mae=np.abs(y_test - y.mean()).mean())
    linear = LinearRegression().fit(x, y)
    run.score(linear_mae=np.abs(y_test - linear.predict(x_test)).mean())

    # 3. The three ways, from the same weights: after an epoch of training they still agree.
    models = [
        PriceModel(hidden_layers=hidden_layers, tolerance=tolerance, way=way)
        for way in ("ops", "tf.function", "eager")
    ]
    for model in models:
        model.build(x.shape)
    weights = models[0].get_weights()
    for model in models:
        model.set_weights(weights)
        eagerly = model.way == "eager"
        model.compile(optimizer="rmsprop", loss="mse", metrics=["mae"], run_eagerly=eagerly)
        model.fit(x, y, shuffle=False, verbose=0)  # an epoch, of the same batches for each model
    predictions = [model.predict(x_test, verbose=0) for model in models]  # 3 x (102, 1)
    # ptp is the largest minus the smallest: here of three predictions for the same house.
    run.score(ways_difference=np.ptp(predictions, axis=0).max())

    # 4. Train the first of them on. With patience=epochs the callback never stops the training, and
    #    only puts the weights of the best epoch back.
    model = models[0]
    best_weights = keras.callbacks.EarlyStopping(
        monitor="val_mae",
        patience=epochs,
        restore_best_weights=True,
    )
    # toolkit.fit takes the arguments of model.fit and does the same, only faster: one call of
    # TensorFlow takes many steps, where model.fit makes a call for each batch.
    history = toolkit.fit(
        model,
        x,
        y,
        batch_size=16,
        epochs=epochs,
        validation_split=0.2,  # the last fifth of the rows, which give val_mae
        callbacks=[run.log(), best_weights],
        checkpoint=run.keep(),  # so that a run that was cut short can go on with --resume
    )
    title = "Boston housing: a layer applied until it settles"
    run.figure("mae.png", toolkit.plot_history(history, "mae", title=title, unit="1,000 dollars"))

    # 5. One look at the test rows.
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    run.score(test_mae=scores["mae"])

    # 6. Save it, and load it in a new process: the predictions are exactly the same.
    prediction = model.predict(x_test, verbose=0)  # (102, 1)
    path = toolkit.save(model, run.path("model.keras"))
    # predict_elsewhere returns a list: the predictions of each file, and here there is one file.
    loaded = run.predict_elsewhere([path], x_test)[0]  # (102, 1)
    run.score(loaded_difference=np.abs(prediction - loaded).max())
    print(f"A test house: predicted {prediction[0, 0]:.1f}, sold for {y_test[0]:.1f}")


if __name__ == "__main__":
    cli(main)
