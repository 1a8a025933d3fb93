"""Save and load models: three kinds of model, one file format, nothing lost.

Teaches   A `.keras` file holds architecture, weights, compile settings and optimizer state, so that
          training goes on where it stopped; weights or architecture alone; custom objects; serving.
          (What an older Keras saved, as .h5 or SavedModel, is best loaded with that Keras.)
Data      Boston housing: 404 + 102 rows, 13 features, prices in thousands of dollars.
Source    Chollet, Deep Learning with Python (edition 2), chapter 7.
Takes     23 s
Try next  --epochs 1: does training still go on alike? Take @keras.saving... off: who complains,
          and when?
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.linear_model import LinearRegression

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: test_mae 2.90 to 3.51.
EXPECTED = {
    "test_mae": (2.7, 3.8),
    "loaded_difference": (0, 0),
    "trained_difference": (0, 1e-4),
}
# A short run to check that everything works; its scores mean nothing.
QUICK = {"epochs": 3}


# A file holds the name of a function of our own, not its code. Registered under that name, it is
# found again by whoever loads the file and has imported this module. (The package is put before
# the name, so that another project can have a softsign of its own.)
@keras.saving.register_keras_serializable(package="recipes")
def softsign(x):
    """An activation: from -1 to 1 like tanh, but more gently."""
    return x / (1 + keras.ops.abs(x))


def build_sequential(features: int) -> keras.Model:
    """The network as a list of layers."""
    return keras.Sequential(
        [
            keras.Input(shape=(features,)),
            layers.Dense(units=64, activation=softsign),
            layers.Dense(units=1),
        ]
    )


def build_functional(features: int) -> keras.Model:
    """The same network as a graph: layers called on tensors."""
    inputs = keras.Input(shape=(features,))
    hidden = layers.Dense(units=64, activation=softsign)(inputs)
    price = layers.Dense(units=1)(hidden)
    return keras.Model(inputs=inputs, outputs=price)


@keras.saving.register_keras_serializable(package="recipes")
class Subclassed(keras.Model):
    """The same network as a class. What loading needs to know of it, the class has to say."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)  # Keras passes `name` and the like when it loads a model
        self.hidden = layers.Dense(units=units, activation=softsign)
        self.price = layers.Dense(units=1)

    def get_config(self):
        """Return the arguments of __init__: with them, loading makes the layers again."""
        return {**super().get_config(), "units": self.hidden.units}

    def build(self, input_shape):
        """Make the weights of each layer: loading puts the saved numbers into them."""
        self.hidden.build(input_shape)
        self.price.build((input_shape[0], self.hidden.units))

    def call(self, x):
        return self.price(self.hidden(x))


def train(model: keras.Model, x: np.ndarray, y: np.ndarray, epochs: int, log, checkpoint) -> None:
    """Compile and train a model; the weights of its best epoch stay."""
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=0.01),
        loss="mse",
        metrics=["mae"],
    )
    # With patience=epochs this never stops the training, and only puts the weights of the best
    # epoch back.
    best_weights = keras.callbacks.EarlyStopping(
        monitor="val_mae",
        patience=epochs,
        restore_best_weights=True,
    )
    # toolkit.fit takes the arguments of model.fit and does the same, only faster: one call of
    # TensorFlow takes many steps, where model.fit makes a call for each batch.
    # Its checkpoint lets a run that was interrupted go on (--resume). It is not what this lesson
    # means by saving.
    toolkit.fit(
        model,
        x,
        y,
        batch_size=16,
        epochs=epochs,
        validation_split=0.2,  # the last fifth of the rows, which give val_mae
        callbacks=[log, best_weights],
        checkpoint=checkpoint,
        verbose=0,
    )


def main(run: Run, *, epochs: int = 100) -> None:
    """Train, save, load in a new process, and compare predictions and further training.

    Args:
        epochs: Passes over the training rows before saving.
    """
    # 1. Data. Each column is scaled to mean 0 and deviation 1, as the training rows have them.
    (x, y), (x_test, y_test) = run.data.boston_housing()  # x: (404, 13), y: (404,)
    standardize = toolkit.Standardizer.fit(x)
    x = standardize(x)
    x_test = standardize(x_test)
    features = x.shape[1]

    # 2. Baselines: guess the mean price every time, and a linear model. (run.score prints a score,
    #    beside the range in which it is expected, if it has one.)
    run.score(baseline_mae=np.abs(y_test - y.mean()).mean())
    linear = LinearRegression().fit(x, y)
    run.score(linear_mae=np.abs(y_test - linear.predict(x_test)).mean())

    # 3. One network, written three ways: each is trained and saved.
    models = {
        "sequential": build_sequential(features),
        "functional": build_functional(features),
        "subclassed": Subclassed(units=64),
    }
    paths = []
    for name, model in models.items():
        model.build((None, features))  # makes the weights; None: a batch may have any size
        print(f"Training the {name} model ...")
        train(model, x, y, epochs, log=run.log(f"{name}.csv"), checkpoint=run.keep(name))
        path = toolkit.save(model, run.path(f"{name}.keras"))
        print(f"Saved {path.name}: {path.stat().st_size:,} bytes")
        paths.append(path)
    run.figure("mae.png", draw_curves({name: run.path(f"{name}.csv") for name in models}, epochs))

    # 4. One look at the test rows.
    model = models["sequential"]
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    run.score(test_mae=scores["mae"])

    # 5. A new process loads the files and predicts. It trains each model on for an epoch, too, and
    #    predicts once more: that is equal only if the state of the optimizer came along.
    print("Loading them in a new process ...")
    theirs = run.predict_elsewhere(paths, x_test, train=(x, y))  # 3 before, 3 after: 6 x (102, 1)
    before = [each.predict(x_test, verbose=0) for each in models.values()]  # 3 x (102, 1)
    for each in models.values():
        each.fit(x, y, shuffle=False, verbose=0)
    after = [each.predict(x_test, verbose=0) for each in models.values()]
    run.score(loaded_difference=np.abs(np.subtract(theirs[:3], before)).max())
    run.score(trained_difference=np.abs(np.subtract(theirs[3:], after)).max())

    # 6. The parts alone: architecture and compile settings as text, and the weights. What no part
    #    holds is the state of the optimizer.
    twin = keras.models.model_from_json(model.to_json())
    model.save_weights(run.path("model.weights.h5"))
    twin.load_weights(run.path("model.weights.h5"))

    # 7. For serving: the bare graph and its weights, which TensorFlow runs without Keras and
    #    without our code. It has no `fit`.
    model.export(run.path("serving"), verbose=False)
    serving = tf.saved_model.load(run.path("serving"))
    prediction = model.predict(x_test, verbose=0)
    parts = [prediction, twin(x_test), serving.serve(x_test)]  # 3 x (102, 1)
    # ptp is the largest minus the smallest: here of three predictions for the same house.
    run.score(parts_difference=np.ptp(parts, axis=0).max())
    print(f"A test house: predicted {prediction[0, 0]:.1f}, sold for {y_test[0]:.1f}")


def draw_curves(logs: dict, epochs: int):
    """Draw the curves of the three models, read from their log files."""
    title = "Boston housing: one network, written three ways"
    skip = epochs // 20  # the first errors are so large that the others would lie flat
    axes = toolkit.plot_history(logs, "mae", title=title, unit="1,000 dollars", skip=skip)
    lines, names = axes.get_legend_handles_labels()
    axes.get_legend().remove()
    axes.figure.set_size_inches(6.4, 5.0)
    names = [name.split(":")[0] for name in names]  # "lowest: 2.9 at epoch 97" would be too wide
    axes.figure.legend(lines, names, loc="outside lower center", ncols=3)
    return axes


if __name__ == "__main__":
    cli(main)
