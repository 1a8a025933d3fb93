"""Save and load models: three kinds of model, one file format, nothing lost.

Teaches   A `.keras` file holds architecture, weights, compile settings and optimizer state, so that
          training goes on where it stopped; weights or architecture alone; custom objects; serving.
          An old .h5 file or SavedModel: load it with the Keras that wrote it, save it as .keras.
Data      Boston housing: 404 + 102 rows, 13 features, prices in thousands of dollars.
Source    Chollet, Deep Learning with Python (edition 2), chapter 7.
Takes     23 s
Try next  --epochs 1: does training still go on alike? Take @keras.saving... off: who complains, when?
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.linear_model import LinearRegression

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: test_mae 2.90 to 3.51.
EXPECTED = {"test_mae": (2.7, 3.8), "loaded_difference": (0, 0), "trained_difference": (0, 1e-4)}
QUICK = {"epochs": 3}


@keras.saving.register_keras_serializable(package="recipes")
def softsign(x):  # a custom activation: from -1 to 1, more gently than tanh
    return x / (1 + keras.ops.abs(x))


@keras.saving.register_keras_serializable(package="recipes")
class Subclassed(keras.Model):  # get_config brings its settings back, build its weights
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.price = layers.Dense(units, activation=softsign), layers.Dense(1)

    def build(self, shape):
        self.hidden.build(shape)
        self.price.build((shape[0], self.hidden.units))

    def call(self, x):
        return self.price(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "units": self.hidden.units}


def main(run: Run, *, epochs: int = 100) -> None:
    """Train, save, load in a new process, and compare predictions and further training.

    Args:
        epochs: Passes over the training rows before saving.
    """
    # 1. Data, and the baselines: the mean price, and a linear model.
    (x, y), (x_test, y_test) = run.data.boston_housing()
    standardize = toolkit.Standardizer.fit(x)
    x, x_test = standardize(x), standardize(x_test)
    linear = LinearRegression().fit(x, y).predict(x_test)
    run.score(baseline_mae=np.abs(y_test - y.mean()).mean(), linear_mae=np.abs(y_test - linear).mean())

    # 2. One network, written three ways. toolkit.fit is model.fit, one compiled call an epoch.
    inputs, hidden, price = keras.Input(shape=x.shape[1:]), layers.Dense(64, softsign), layers.Dense(1)
    models = {"sequential": keras.Sequential([inputs, layers.Dense(64, softsign), layers.Dense(1)])}
    models |= {"functional": keras.Model(inputs, price(hidden(inputs))), "subclassed": Subclassed(64)}
    for name, model in models.items():
        model.build((None, *x.shape[1:]))
        model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
        best = keras.callbacks.EarlyStopping("val_mae", patience=epochs, restore_best_weights=True)
        watch = {"validation_split": 0.2, "callbacks": [run.log(f"{name}.csv"), best], "verbose": 0}
        toolkit.fit(model, x, y, epochs=epochs, batch_size=16, checkpoint=run.keep(name), **watch)
        path = toolkit.save(model, run.path(f"{name}.keras"))
        print(f"Saved {path.name}: {path.stat().st_size:,} bytes")
    logs = {name: run.path(f"{name}.csv") for name in models}
    run.figure("mae.png", toolkit.plot_history(logs, "mae", skip=epochs // 20))
    model = models["sequential"]
    run.score(test_mae=model.evaluate(x_test, y_test, verbose=0, return_dict=True)["mae"])

    # 3. A new process loads them: equal predictions; and it trains on as we do: the optimizer came along.
    theirs = run.predict_elsewhere([run.path(f"{name}.keras") for name in models], x_test, train=(x, y))
    ours = [each.predict(x_test, verbose=0) for each in models.values()]
    for each in models.values():
        each.fit(x, y, shuffle=False, verbose=0)
        ours.append(each.predict(x_test, verbose=0))
    difference = np.ptp([ours, theirs], axis=0).max(axis=(1, 2))
    run.score(loaded_difference=difference[:3].max(), trained_difference=difference[3:].max())

    # 4. The parts alone: architecture as JSON, and weights; then a graph for serving, which needs no Keras.
    twin = keras.models.model_from_json(model.to_json())
    model.save_weights(run.path("model.weights.h5"))
    twin.load_weights(run.path("model.weights.h5"))
    model.export(run.path("serving"), verbose=False)
    serving = tf.saved_model.load(run.path("serving"))
    run.score(parts_difference=np.ptp([ours[3], twin(x_test), serving.serve(x_test)], axis=0).max())
    print(f"A test house: predicted {ours[3][0, 0]:.1f}, sold for {y_test[0]:.1f}")


if __name__ == "__main__":
    cli(main)
