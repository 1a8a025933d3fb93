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
EXPECTED = {
    "baseline_mae": (6.5, 7),
    "linear_mae": (3.4, 3.5),
    "cv_mae": (2.1, 2.6),
    "test_mae": (2.1, 3.1),
}
# A short run to check that everything works; its scores mean nothing.
QUICK = {"folds": 2, "epochs": 5}


def build_model(x_train: np.ndarray, units: int, loss: str) -> keras.Model:
    """Build and compile a network that turns the features of a house into its price.

    The last layer has no activation. A sigmoid would keep the price below 1. A relu might give the
    price 0 for ever: where its sum is negative, no gradient passes back that could change it.
    """
    # The columns have very different sizes (NOX about 0.5, TAX about 400). The first layer brings
    # each to mean 0 and deviation 1. It may know the training rows only: the mean of validation
    # rows would tell the model something about rows that it is about to be tested on.
    standardize = toolkit.Standardizer.fit(x_train).layer()
    model = keras.Sequential(
        [
            keras.Input(shape=x_train.shape[1:]),
            standardize,
            layers.Dense(units, activation="relu"),
            layers.Dense(units, activation="relu"),
            layers.Dense(1),
        ]
    )
    # "rmsprop" is gradient descent that divides the step of each weight by the recent size of its
    # gradients.
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
    """Cross-validate, choose the number of epochs, train on all rows, and score the test rows.

    Args:
        dataset: Boston, or the larger California.
        folds: Parts that the training rows are cut into.
        repeats: How many times the rows are cut into folds, each time differently.
        epochs: Passes over the training rows, enough of them to see overfitting.
        batch_size: Rows in each step.
        units: Width of the two hidden layers.
        loss: What training makes small: squared error, or one that outliers disturb less.
    """
    # 1. Data: each row is a house. The test rows score the baselines and, in step 5, the final
    # model. Until then no choice looks at them.
    boston = dataset == "boston_housing"
    data = run.data.boston_housing() if boston else run.data.california_housing()
    (x, y), (x_test, y_test) = data  # Boston: x is (404, 13), y is (404,)
    unit = 1_000  # dollars: Boston's price of 15.2 stands for 15,200 dollars
    if not boston:
        # California's prices come in dollars. A network starts with outputs near 0, and comes to
        # targets near 20 far sooner than to targets near 200,000.
        unit = 10_000
        y = y / unit
        y_test = y_test / unit
    print(f"The first house costs {y[0] * unit:,.0f} dollars. Its features:")
    for name, value in zip(data.feature_names, x[0], strict=True):
        print(f"  {name:<20} {value:10.2f}")

    # 2. Baselines: the mean price for every house, and a linear model. A network must beat both.
    # MAE, the mean absolute error, says by how much a prediction is wrong on average. (run.score
    # prints a score, beside the range in which it is expected.)
    errors = np.abs(y_test - y.mean())  # (102,), if every house is given the mean price
    run.score(baseline_mae=errors.mean())
    linear = LinearRegression().fit(x, y)
    linear_errors = np.abs(y_test - linear.predict(x_test))  # (102,)
    run.score(linear_mae=linear_errors.mean())

    # 3. Cross-validation. A quarter of 404 rows is too few to judge by: another quarter would give
    # another score. So every part is the validation set once, for a fresh model each time.
    splits = []  # a pair for each fold: the numbers of its training and of its validation rows
    for repeat in range(repeats):
        splits += toolkit.kfold(len(x), folds, seed=run.seed + repeat)
    models = [build_model(x[train], units, loss) for train, _ in splits]
    # fit_many does what model.fit would do for each model in turn, but trains all of them at once.
    # A checkpoint lets a run that was interrupted go on (--resume).
    histories = toolkit.fit_many(
        models, x, y, splits, epochs=epochs, batch_size=batch_size, checkpoint=run.keep()
    )

    # 4. Choose the number of epochs: the one after which the folds' mean error is lowest.
    curves = np.array([history.history["val_mae"] for history in histories])  # (splits, epochs)
    mean_curve = curves.mean(axis=0)  # (epochs,)
    best_epochs = int(mean_curve.argmin()) + 1  # the first epoch, at index 0, is number 1
    fold_scores = curves[:, best_epochs - 1]  # (splits,)
    print(f"The mean error is lowest after epoch {best_epochs}; those of the folds there:", end=" ")
    print(", ".join(f"{score:.2f}" for score in fold_scores))
    # This score is a little too good, because the best of many epochs was picked for it.
    run.score(cv_mae=mean_curve.min())
    # The first epochs are left out of the figure: their errors are so large that the rest is flat.
    axes = toolkit.plot_folds(histories, "mae", skip=epochs // 20)
    axes.set_title(f"{data.name} ({data.source} data): the error in {len(splits)} folds")
    axes.set_ylabel(f"mean absolute error, in {unit:,} dollars")
    run.figure("folds.png", axes)

    # 5. The final model: every training row, for that many epochs. Then one look at the test rows.
    model = build_model(x, units, loss)
    toolkit.fit(
        model,
        x,
        y,
        epochs=best_epochs,
        batch_size=batch_size,
        callbacks=[run.log()],  # writes each epoch's scores into history.csv
        checkpoint=run.keep("all"),  # under another name than that of the folds
    )
    scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    run.score(test_mae=scores["mae"])
    toolkit.save(model, run.path("model.keras"))

    # 6. Use it: what does it think of the first houses of the test set?
    predictions = model.predict(x_test[:3], verbose=0)[:, 0]  # (3, 1) becomes (3,)
    for predicted, price in zip(predictions, y_test[:3], strict=True):
        print(f"Predicted {predicted * unit:,.0f} dollars, sold for {price * unit:,.0f}")


if __name__ == "__main__":
    cli(main)
