"""Predict house prices, judged by k-fold cross-validation.

Teaches   Why 404 rows need folds; why each fold scales by its own training rows; how to choose the
          number of epochs without looking at the test rows.
Data      Boston housing: 404 + 102 rows, 13 features, prices in thousands of dollars.
          Column "B" encodes race: fit for this study, not for any decision.
Source    Chollet, Deep Learning with Python, section 3.6.
Published 2.38 (cross-validated), 2.41 to 2.55 (test)
Takes     10 s
Try next  --repeats 5: how much of the score is luck? --loss huber; --units 8; --folds 10;
          --dataset california_housing --batch-size 256 --epochs 60
"""

from typing import Literal

import keras
import numpy as np
from keras import layers
from sklearn.linear_model import LinearRegression

import toolkit
from toolkit.run import Run, cli

# Seeds 0 to 9: cv_mae 2.18 to 2.41, test_mae 2.26 to 2.88.
EXPECTED = {"baseline_mae": (6.5, 7), "linear_mae": (3.4, 3.5), "cv_mae": (2.1, 2.6), "test_mae": (2.1, 3.1)}
QUICK = {"folds": 2, "epochs": 5}


def build_model(x_train: np.ndarray, units: int, loss: str) -> keras.Model:
    """Two hidden layers and a linear output: a price must not be squashed."""
    model = keras.Sequential([keras.Input(shape=x_train.shape[1:])])
    model.add(toolkit.Standardizer.fit(x_train).layer())  # these rows only, and saved with the model
    model.add(layers.Dense(units, activation="relu"))
    model.add(layers.Dense(units, activation="relu"))
    model.add(layers.Dense(1))
    model.compile(optimizer="rmsprop", loss=loss, metrics=["mae"])
    return model


def main(
    run: Run,
    *,
    dataset: Literal["boston_housing", "california_housing"] = "boston_housing",
    folds: int = 4,
    repeats: int = 1,
    epochs: int = 500,
    batch_size: int = 16,
    units: int = 64,
    loss: Literal["mse", "huber", "mae"] = "mse",
) -> None:
    """Cross-validate, choose the number of epochs, train on all training rows, and score the test rows.

    Args:
        dataset: Boston, or the larger California.
        folds: Parts that the training rows are cut into.
        repeats: Times that this is done, each time cut differently.
        epochs: Passes over the training rows, enough of them to see overfitting.
        batch_size: Rows a step.
        units: Width of the two hidden layers.
        loss: What training makes small: squared error, or one that outliers disturb less.
    """
    # 1. Data. The test rows wait, unseen, until step 4.
    data = getattr(run.data, dataset)()
    (x, y), (x_test, y_test) = data
    y, y_test = (y, y_test) if y.max() < 1000 else (y / 10_000, y_test / 10_000)  # dollars are too many
    print(f"A house: {dict(zip(data.feature_names, x[0].round(2).tolist(), strict=True))}, price {y[0]:.1f}")

    # 2. Baselines: guess the mean price every time, and a linear model.
    linear = LinearRegression().fit(x, y).predict(x_test)
    run.score(baseline_mae=np.abs(y_test - y.mean()).mean(), linear_mae=np.abs(y_test - linear).mean())

    # 3. Cross-validation, all folds at once: fit_many is model.fit for many, one compiled call an epoch.
    splits = [split for r in range(repeats) for split in toolkit.kfold(len(x), folds, seed=run.seed + r)]
    models = [build_model(x[train], units, loss) for train, _ in splits]
    keep = {"batch_size": batch_size, "checkpoint": run.keep()}
    histories = toolkit.fit_many(models, x, y, splits, epochs=epochs, **keep)
    run.figure("folds.png", toolkit.plot_folds(histories, "mae", skip=epochs // 20))
    curve = np.mean([history.history["val_mae"] for history in histories], axis=0)
    best_epochs = int(curve.argmin()) + 1
    scores = [round(history.history["val_mae"][best_epochs - 1], 2) for history in histories]
    print(f"The mean is lowest at epoch {best_epochs}; there the folds score {scores}.")
    run.score(cv_mae=curve.min())  # the lowest point of a curve: it flatters, test_mae does not

    # 4. The final model: every training row, for that many epochs; then one look at the test rows.
    model = build_model(x, units, loss)
    keep |= {"checkpoint": run.keep("all"), "callbacks": [run.log()], "verbose": 0}
    toolkit.fit(model, x, y, epochs=best_epochs, **keep)
    run.score(test_mae=model.evaluate(x_test, y_test, verbose=0, return_dict=True)["mae"])
    toolkit.save(model, run.path("model.keras"))

    # 5. Use it.
    for guess, price in zip(model.predict(x_test[:3], verbose=0)[:, 0], y_test[:3], strict=True):
        print(f"A test house: predicted {guess:.1f}, sold for {price:.1f}")


if __name__ == "__main__":
    cli(main)
