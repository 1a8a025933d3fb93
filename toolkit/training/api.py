"""`fit`, `fit_many`, `cross_validate`: arguments, checked, become a `Request`; and `CrossValidation`."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from toolkit import splits as splitting
from toolkit.histories import mean_and_deviation, together
from toolkit.training import checks
from toolkit.training.arrays import take_rows, to_table, with_class_weights
from toolkit.training.loop import Request
from toolkit.training.members import Member, Settings, draw_seed
from toolkit.training.progress import to_text


def fit(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: str | int = "auto",
    callbacks: Any = None,
    validation_split: float = 0.0,
    validation_data: Any = None,
    shuffle: bool = True,
    class_weight: dict[int, float] | None = None,
    sample_weight: Any = None,
    initial_epoch: int = 0,
    steps_per_epoch: None = None,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    validation_freq: int | list[int] = 1,
    *,
    jit: bool | str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    check_finite: bool = True,
) -> keras.callbacks.History:
    """Train like `model.fit`, in compiled calls of many steps.

    Arguments and result are those of `model.fit`; with `shuffle=False` the weights and the History are
    `model.fit`'s too, to float32 rounding. One thing differs on purpose: a run whose weights become NaN or
    infinite ends with an error that names the epoch, unless `check_finite` is False.

    Args:
        model: Compiled model; its own `train_step` and `test_step` run.
        x: Array, SciPy sparse matrix, or list, tuple or dict of such; rows first, any numeric dtype.
        y: Targets, likewise.
        batch_size: Rows a step; 32 by default.
        epochs: Epoch at which to stop.
        verbose: 0 silent, 1 bar, 2 a line an epoch; "auto" is 1 on a terminal and 2 elsewhere.
        callbacks: Callbacks that act at epochs. One that needs every batch is refused.
        validation_split: Fraction of the rows, taken from the end, to validate on.
        validation_data: `(x, y)` or `(x, y, sample_weight)` to validate on instead.
        shuffle: Draw a new order each epoch, from Keras's seed (`keras.utils.set_random_seed`) and the number
            of the epoch: two calls with one seed see the rows in the same order.
        class_weight: Weight of each class, by number.
        sample_weight: Weight of each row, shape `(n,)`, or one array per output.
        initial_epoch: Epoch at which to start.
        steps_per_epoch: None: arrays have an end, so that an epoch is all their rows.
        validation_steps: Batches to validate on; all by default.
        validation_batch_size: Rows a step in validation; `batch_size` by default.
        validation_freq: Validate after each so many epochs, or after those in a list, counted from 1.
        jit: Use XLA: True, False, or "auto" (where it pays).
        checkpoint: Folder in which to keep the state of the run. Where it holds some, of a run that was
            killed, the run goes on from there, and ends with the numbers that it would have had.
        check_finite: Stop with an error when weights that were finite no longer are.

    Returns:
        The History.

    Raises:
        ValueError: Input that cannot be right, before any training: the message names the first place.
            Or a checkpoint of another model, of other data or settings: the message names what differs.
        TypeError: A dataset or generator, or a callback that needs every batch.
        FloatingPointError: Weights are no longer finite after an epoch.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile("sgd", loss="mse")
    >>> history = fit(model, [[0, 1], [1, 0]], [1.0, 1.0], epochs=2, verbose=0)
    >>> [round(loss, 4) for loss in history.history["loss"]]
    [1.0, 0.9409]
    """
    checks.check_model(model)
    if steps_per_epoch is not None:
        raise ValueError(
            "`steps_per_epoch` must be None: an epoch is all rows of the arrays; use model.fit for epochs of "
            f"another length. Received: {steps_per_epoch!r}"
        )
    table = to_table(x, y, sample_weight)
    validation = None
    if validation_data is not None:
        validation = to_table(*checks.check_validation_data(validation_data), prefix="validation ")
    elif validation_split:
        kept = checks.check_split(validation_split, len(table))
        checks.check_table(model, table)
        table, validation = table.take(slice(kept)), table.take(slice(kept, None))
    if not validation_split or validation_data is not None:
        checks.check_table(model, table)
    if validation_data is not None and validation is not None:
        checks.check_table(model, validation, "validation ")
    if class_weight is not None:  # for training alone
        table = with_class_weights(table, class_weight)
    settings = _settings(
        epochs, initial_epoch, batch_size, validation_batch_size, validation_steps, validation_freq, shuffle,
        draw_seed(shuffle), jit, check_finite, verbose,
    )  # fmt: skip
    validation_rows = np.arange(0 if validation is None else len(validation))
    _check_validation_steps(settings, len(validation_rows))
    checked_callbacks = checks.check_callbacks(callbacks)
    member = Member(
        0, "the model", model, np.arange(len(table)), validation_rows, checked_callbacks, settings
    )
    return Request([member], table, validation, _folder(checkpoint)).run()[0]


def fit_many(
    models: Sequence[keras.Model],
    x: Any,
    y: Any,
    splits: Sequence[tuple[Any, Any]],
    *,
    names: Sequence[str] | None = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: str | int = "auto",
    callbacks: Any = None,
    shuffle: bool = True,
    class_weight: dict[int, float] | None = None,
    sample_weight: Any = None,
    initial_epoch: int = 0,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    validation_freq: int | list[int] = 1,
    jit: bool | str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    check_finite: bool = True,
) -> list[keras.callbacks.History]:
    """Train many models at once, each on its own rows of one copy of the data.

    For k-fold cross-validation, many seeds, a grid of learning rates. Each model gets the numbers that `fit`
    alone gives it on its rows, to float32 rounding. Models of one architecture are trained as one, their
    weights stacked, where that is proven to be exact; the others run one after another, and a record of the
    log `toolkit.training`, of level INFO, says why.

    Args:
        models: Compiled models, which share nothing.
        x: Array, SciPy sparse matrix, or list, tuple or dict of such, for all models.
        y: Targets, likewise.
        splits: For each model the numbers of its training rows and of its validation rows (None: none).
        names: What to call the models in messages; "model 1", "model 2", ... by default.
        batch_size: Rows a step; 32 by default.
        epochs: Epoch at which to stop.
        verbose: As in `fit`; the metrics shown are means over the models.
        callbacks: A function from a model's position in `models` to its list of callbacks, or one list a
            model: no two models can share a callback.
        shuffle: Draw a new order each epoch; every model from the same seed and epoch, as `fit` would.
        class_weight: Weight of each class, by number, in training.
        sample_weight: Weight of each row, in training and validation.
        initial_epoch: Epoch at which to start.
        validation_steps: As in `fit`.
        validation_batch_size: As in `fit`.
        validation_freq: As in `fit`.
        jit: Use XLA: True, False, or "auto" (where it pays).
        checkpoint: Folder in which to keep the state of the run, as in `fit`.
        check_finite: As in `fit`.

    Returns:
        A History a model.

    Raises:
        ValueError: Input that cannot be right, before any training: splits that are not row numbers of x, or
            models that share a layer, an optimizer or a metric.
        TypeError: A dataset or generator, or a callback that needs every batch or is shared.
        FloatingPointError: A model's weights are no longer finite after an epoch.

    >>> x, y = np.eye(4), np.ones(4)
    >>> models = [keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]) for _ in range(2)]
    >>> for model in models:
    ...     model.compile("sgd", loss="mse")
    >>> histories = fit_many(models, x, y, [([0, 1], [2, 3]), ([2, 3], [0, 1])], epochs=2, verbose=0)
    >>> [sorted(history.history) for history in histories]
    [['loss', 'val_loss'], ['loss', 'val_loss']]
    """
    models = checks.check_many_models(models)
    table = to_table(x, y, sample_weight)
    for model in models:
        checks.check_table(model, table)
    checked_splits = checks.check_splits(splits, len(models), len(table))
    checked_callbacks = checks.check_many_callbacks(callbacks, len(models))
    settings = _settings(
        epochs, initial_epoch, batch_size, validation_batch_size, validation_steps, validation_freq, shuffle,
        draw_seed(shuffle), jit, check_finite, verbose,
    )  # fmt: skip
    for _, validation_rows in checked_splits:
        _check_validation_steps(settings, len(validation_rows))
    chosen_names = [f"model {i + 1}" for i in range(len(models))] if names is None else list(names)
    if len(chosen_names) != len(models):
        raise ValueError(f"`names` must have one for each of the {len(models)} models. Received: {names!r}")
    members = [
        Member(i, chosen_names[i], model, *checked_splits[i], checked_callbacks[i], settings)
        for i, model in enumerate(models)
    ]
    weighted = table if class_weight is None else with_class_weights(table, class_weight)
    return Request(members, weighted, table, _folder(checkpoint), many=True).run() if members else []


def cross_validate(
    build_model: Callable[[Any], keras.Model],
    x: Any,
    y: Any,
    *,
    folds: int = 4,
    repeats: int = 1,
    seed: int = 0,
    stratify: Any = None,
    groups: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: str | int = "auto",
    callbacks: Any = None,
    shuffle: bool = True,
    class_weight: dict[int, float] | None = None,
    sample_weight: Any = None,
    jit: bool | str = "auto",
    monitor: str = "val_loss",
    checkpoint: str | os.PathLike[str] | None = None,
    check_finite: bool = True,
) -> "CrossValidation":
    """Train a fresh model on each fold, all of them at once, and keep every epoch's curve.

    Args:
        build_model: Makes a compiled model from the training rows of x (so that it can scale by these alone).
            Keras's seed is `seed` plus the number of the fold when it is called, and `seed` in training.
        x: Array, SciPy sparse matrix, or list, tuple or dict of such.
        y: Targets, likewise.
        folds: Parts that the rows are cut into, as by `toolkit.kfold`.
        repeats: How often to cut them anew, with the seeds `seed`, `seed + 1`, ...
        seed: Seed of everything.
        stratify: Labels, shape `(n,)`, whose shares are to be the same in all folds.
        groups: Group numbers, shape `(n,)`; no group is on both sides.
        batch_size: As in `fit`, like all arguments that are not named here.
        epochs: As in `fit`.
        verbose: As in `fit`.
        callbacks: As in `fit_many`.
        shuffle: As in `fit`.
        class_weight: As in `fit_many`.
        sample_weight: As in `fit_many`.
        jit: As in `fit`.
        monitor: What is lowest in the best epoch.
        checkpoint: Folder in which to keep the state of the run, as in `fit`.
        check_finite: As in `fit`.

    Returns:
        The curves, and what they say.

    Raises:
        ValueError: As `fit_many`.
        TypeError: As `fit_many`, or `build_model` returns no model.

    >>> def build_model(x_train):
    ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    ...     model.compile("sgd", loss="mse")
    ...     return model
    >>> result = cross_validate(build_model, np.eye(2).repeat(4, axis=0), np.ones(8), epochs=3, verbose=0)
    >>> result.curves["val_loss"].shape
    (4, 3)
    >>> result.best_epoch
    3
    """
    rows = len(to_table(x, y, sample_weight))
    if not 2 <= checks.check_count("folds", folds) <= rows:
        raise ValueError(f"`folds` must be between 2 and n={rows}. Received: folds={folds}")
    checks.check_count("repeats", repeats, 1)
    splits = [
        split
        for repeat in range(repeats)
        for split in splitting.kfold(rows, folds, seed=seed + repeat, stratify=stratify, groups=groups)
    ]
    models = []
    for i, (train, _) in enumerate(splits):
        keras.utils.set_random_seed(seed + i)
        models.append(checks.check_build_model(build_model(take_rows(x, train)), build_model))
    keras.utils.set_random_seed(seed)
    histories = fit_many(
        models,
        x,
        y,
        splits,
        names=[f"fold {i + 1}" for i in range(len(splits))],
        batch_size=batch_size,
        epochs=epochs,
        verbose=verbose,
        callbacks=callbacks,
        shuffle=shuffle,
        class_weight=class_weight,
        sample_weight=sample_weight,
        jit=jit,
        checkpoint=checkpoint,
        check_finite=check_finite,
    )
    return CrossValidation(tuple(history.history for history in histories), monitor)


def _settings(
    epochs: int,
    initial_epoch: int,
    batch_size: int | None,
    validation_batch_size: int | None,
    validation_steps: int | None,
    validation_freq: int | list[int],
    *others: Any,
) -> Settings:
    size = checks.check_batch_size(batch_size)
    validation_size = checks.check_batch_size(validation_batch_size, "validation_batch_size")
    checks.check_validation_freq(validation_freq)
    return Settings(
        epochs,
        initial_epoch,
        size,
        size if validation_batch_size is None else validation_size,
        validation_steps,
        validation_freq,
        *others,
    )


def _check_validation_steps(settings: Settings, rows: int) -> None:
    steps = settings.validation_steps
    if steps is not None:
        most = -(-rows // settings.validation_batch_size)
        if checks.check_count("validation_steps", steps, 1) > most:
            raise ValueError(
                f"`validation_steps` must be at most {most}, the number of batches. Received: {steps}"
            )


def _folder(path: str | os.PathLike[str] | None) -> Path | None:
    return None if path is None else Path(path)


@dataclass(frozen=True, eq=False, repr=False)
class CrossValidation:
    """What `cross_validate` has found.

    Attributes:
        histories: The history of each fold: for each metric its value at each epoch.
        monitor: The metric that chooses the best epoch, by its lowest mean.

    >>> CrossValidation(({"val_loss": [2.0, 1.0, 4.0]}, {"val_loss": [3.0, 2.0, 2.0]}))
    2 folds, best epoch 2 of 3 by val_loss:
      val_loss  1.5000 +- 0.5000
    """

    histories: tuple[dict[str, list[float]], ...]
    monitor: str = "val_loss"

    @property
    def curves(self) -> dict[str, npt.NDArray[np.float64]]:
        """For each metric all curves, shape `(folds, epochs)`; NaN after a fold's last epoch."""
        names = self.histories[0]
        return {name: together([history[name] for history in self.histories]) for name in names}

    @property
    def mean(self) -> dict[str, npt.NDArray[np.float64]]:
        """For each metric its mean over the folds, shape `(epochs,)`."""
        return {name: mean_and_deviation(curves)[0] for name, curves in self.curves.items()}

    @property
    def std(self) -> dict[str, npt.NDArray[np.float64]]:
        """For each metric its standard deviation over the folds, shape `(epochs,)`."""
        return {name: mean_and_deviation(curves)[1] for name, curves in self.curves.items()}

    @property
    def best_epoch(self) -> int:
        """The epoch, counted from 1, with the lowest mean; among those that all folds have reached."""
        reached = min(len(history[self.monitor]) for history in self.histories)
        return int(self.mean[self.monitor][:reached].argmin()) + 1

    @property
    def scores(self) -> dict[str, npt.NDArray[np.float64]]:
        """For each metric its values in the best epoch, shape `(folds,)`: a lowest point flatters."""
        return {name: curve[:, self.best_epoch - 1] for name, curve in self.curves.items()}

    def __repr__(self) -> str:
        epochs = len(self.mean[self.monitor])
        lines = [f"{len(self.histories)} folds, best epoch {self.best_epoch} of {epochs} by {self.monitor}:"]
        width = max(map(len, self.scores))
        lines += [
            f"  {name:{width}}  {to_text(score.mean())} +- {to_text(score.std())}"
            for name, score in self.scores.items()
        ]
        return "\n".join(lines)

    def plot(self, metric: str = "loss") -> Any:
        """Draw the validation curves of a metric, as `toolkit.plot_folds` does.

        Args:
            metric: Name of the metric, without "val_".

        Returns:
            What `toolkit.plot_folds` returns.

        Raises:
            ValueError: There is no such metric.
        """
        from toolkit.plotting import plot_folds  # not everybody who trains draws

        return plot_folds(self.histories, metric)
