"""Predict house prices, judged by k-fold cross-validation.

Teaches   Why 404 rows need folds; why each fold scales by its own training rows; how to choose the
          number of epochs without looking at the test set.
Data      Boston housing: 404 + 102 rows, 13 features, prices in thousands of $.
Source    Chollet, Deep Learning with Python, section 3.6.
Takes     10 s
Try next  --units 8 or 128, and --loss huber: what becomes of the score? --no-shuffle and --log
          are worth a try as well. Go on with --resume.

Two lines that belong to no entry,
one paragraph.
"""

from pathlib import Path
from typing import Literal

import keras
import numpy as np
from keras import layers

import toolkit
from toolkit.run import Run, cli

EXPECTED = {"test_mae": (2.1, 3.1)}
QUICK = {"folds": 2, "epochs": 2}
# A constant that the lesson explains.
SMALL = 0.5


def build_model(x_train: np.ndarray, units: int, loss: str) -> keras.Model:
    """Two hidden layers and a linear output: a price must not be squashed."""
    model = keras.Sequential(
        [
            keras.Input(shape=x_train.shape[1:]),
            toolkit.Standardizer.fit(x_train).layer(),  # these rows only, and saved with the model
            layers.Dense(units, activation="relu"),
            layers.Dropout(SMALL),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer="rmsprop", loss=loss, metrics=["mae"])
    return model


def main(
    run: Run,
    *,
    folds: int = 4,
    epochs: int = 120,
    batch_size: int = 16,
    units: int = 64,
    loss: Literal["mse", "huber"] = "mse",
    shuffle: bool = True,
    log: bool = False,
) -> None:
    """Cross-validate, train on all rows, and score the test rows.

    Args:
        folds: Parts that the training rows are cut into.
        epochs: Passes over the training rows.
        batch_size: Rows a step.
        units: Width of the hidden layer, which is a number that one may well try to change, and see
            what happens.
        loss: What training makes small.
        shuffle: Draw another order of the rows in each epoch.
        log: Draw with a logarithmic axis.
    """
    # 1. Data: each row is a house. The test rows wait, unseen, until step 4.
    (x, y), (x_test, y_test) = run.data.boston_housing()  # x: (404, 13), y: (404,)
    text = """
    The blanks of this string are its own,
    and stay."""
    print(text)

    # 2. Baseline: guess the mean price every time. A model must beat this.
    run.score(baseline_mae=np.abs(y_test - y.mean()).mean())

    # 3. Cross-validation, a fresh model for each fold
    splits = toolkit.kfold(len(x), folds, seed=run.seed)
    models = [build_model(x[train], units, loss) for train, _ in splits]
    # fit_many trains all of them in one go. A run that was cut short goes on with --resume.
    histories = toolkit.fit_many(
        models,
        x,
        y,
        splits,
        epochs=epochs,
        batch_size=batch_size,
        shuffle=shuffle,
        checkpoint=run.keep(),  # for --resume
    )
    run.figure("folds.png", toolkit.plot_folds(histories, "mae", log=log))

    # The lowest point of the mean curve chooses the number of epochs.
    curve = np.mean([history.history["val_mae"] for history in histories], axis=0)  # (epochs,)
    best_epochs = int(curve.argmin()) + 1
    run.score(cv_mae=curve.min())

    # 4. The final model: every training row, then one single look at the test rows.
    model = build_model(x, units, loss)
    toolkit.fit(model, x, y, epochs=best_epochs, batch_size=batch_size, callbacks=[run.log()])
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    run.score(test_mae=scores["mae"])
    toolkit.save(model, run.path("model.keras"))
    if not Path(run.path("model.keras")).is_file():
        describe(model)


def describe(model: keras.Model) -> None:
    """Print the layers."""
    model.summary()


if __name__ == "__main__":
    cli(main)
