"""What is refused before any training, by name: models, arguments, targets and callbacks."""

import inspect
import math
import weakref
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from toolkit import _checks, _keras
from toolkit.training.arrays import RowNumbers, Table, refuse_non_finite

_BATCH_HOOKS = [f"on_{phase}batch_{end}" for phase in ("", "train_", "test_") for end in ("begin", "end")]
_trained: "weakref.WeakKeyDictionary[keras.Model, Any]" = weakref.WeakKeyDictionary()


def check_model(model: Any) -> None:
    """Refuse what is no compiled model on one device, or trains by a loop of its own."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(f"The Keras backend must be tensorflow. Received: {keras.backend.backend()}")
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a compiled keras.Model. Received: {type(model).__name__} {model!r:.60}"
        )
    if not model.compiled:
        raise ValueError(
            "`model` must be a compiled keras.Model: call model.compile first. Received: an uncompiled one"
        )
    if model.run_eagerly:
        raise ValueError("`model` must be compiled with run_eagerly=False, or use model.fit. Received: True")
    if model.distribute_strategy is not tf.distribute.get_strategy() or tf.distribute.has_strategy():
        raise ValueError(
            "`model` must live on one device; use model.fit under a distribution strategy. "
            f"Received: {type(model.distribute_strategy).__name__}"
        )
    if name := _keras.own_loop(model):
        raise ValueError(
            f"`model` must be trained by Keras's own `{name}`; use model.fit for one that overrides it. "
            f"Received: {type(model).__name__}"
        )
    traced = model.train_function is not None or _trained.get(model) is _keras.compilation(model)
    changed = _keras.changed_since_compile(model) if traced else []
    if changed:
        raise ValueError(
            "`model` must be compiled again after layers were added, frozen or unfrozen: Keras would go on "
            f"with the model as it was. Received: {', '.join(changed)}"
        )


def remember_compilation(model: keras.Model) -> None:
    """Note that the model is trained as it was compiled, so that a later change of layers is noticed."""
    _trained[model] = _keras.compilation(model)


def check_count(name: str, value: Any, least: int = 0) -> int:
    """Return a whole number, or refuse what is none."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"`{name}` must be a whole number, {least} or more. Received: {value!r}")
    return int(value)


def check_batch_size(batch_size: int | None, name: str = "batch_size") -> int:
    """Return the number of rows a step; Keras's 32 for None."""
    return 32 if batch_size is None else check_count(name, batch_size, 1)


def check_split(validation_split: Any, rows: int) -> int:
    """Return how many rows are left to train on."""
    wrong = isinstance(validation_split, bool) or not isinstance(validation_split, int | float | np.number)
    kept = 0 if wrong else math.floor(rows * (1.0 - validation_split))
    if not 0 < kept < rows:
        raise ValueError(f"`validation_split` must leave rows on both sides. Received: {validation_split!r}")
    return kept


def check_validation_data(validation_data: Any) -> tuple[Any, Any, Any]:
    """Return x, y and sample_weight."""
    if not isinstance(validation_data, list | tuple) or not 2 <= len(validation_data) <= 3:
        raise ValueError(
            "`validation_data` must be (x, y) or (x, y, sample_weight). "
            f"Received: {type(validation_data).__name__}"
        )
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(validation_data))
    return x, y, sample_weight


def check_validation_freq(validation_freq: Any) -> None:
    """Refuse what is neither a number of epochs nor a list of some."""
    items = validation_freq if isinstance(validation_freq, list) else [validation_freq]
    for item in items:
        check_count("validation_freq", item, 1)


def check_table(model: keras.Model, table: Table, prefix: str = "") -> None:
    """Refuse strings for numbers, NaN and infinity, and labels that do not go with the loss."""
    x, y, _ = table.unpack()
    inputs = getattr(model, "inputs", None) or []
    if inputs and all(each.dtype != "string" for each in inputs):
        for leaf in keras.tree.flatten(x):
            if leaf is not None and leaf.dtype.kind in "US":
                raise ValueError(
                    f"`{prefix}x` must hold numbers, as the model's inputs do. "
                    f"Received: strings, {str(leaf.flat[0])!r}"
                )
    own_step = type(model).train_step is keras.Model.train_step and "train_step" not in vars(model)
    losses = keras.tree.flatten(getattr(model, "loss", None))
    foreign = not own_step or type(model).compute_loss is not keras.Model.compute_loss
    refuse_non_finite(table, prefix, skip_y=foreign or not all(map(_is_kerass_own, losses)))
    if y is None or foreign:
        return
    strings = [leaf for leaf in keras.tree.flatten(y) if leaf is not None and leaf.dtype.kind in "US"]
    if strings and losses and all(map(_is_kerass_own, losses)):
        raise ValueError(
            f"`{prefix}y` must hold numbers: turn labels into class numbers first, with np.unique(y, "
            f"return_inverse=True), say. Received: strings, {str(strings[0].flat[0])!r}"
        )
    shapes = _output_shapes(model, table) if any(map(_loss_kind, losses)) else []
    names = list(getattr(model, "output_names", None) or range(len(shapes)))
    if len(names) != len(shapes):
        return
    targets, by_output = (_by_output(value, names) for value in (y, model.loss))
    for name, shape in zip(names, shapes, strict=True):
        if isinstance(targets.get(name), np.ndarray):
            label = f"{prefix}y" if len(names) == 1 else f"{prefix}y[{name!r}]"
            _check_target(label, targets[name], shape, by_output.get(name))


def _output_shapes(model: keras.Model, table: Table) -> list[tuple[int | None, ...]]:
    """Return the shapes of the outputs; none where a subclass does not tell them without data."""
    if getattr(model, "outputs", None):
        return [tuple(output.shape) for output in model.outputs]
    try:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(table.spec())
        y_pred = _keras.output_spec(model, x)
    except Exception:
        return []
    return [tuple(output.shape) for output in keras.tree.flatten(y_pred)]


def _by_output(value: Any, names: list[Any]) -> dict[Any, Any]:
    if isinstance(value, dict):
        return value
    values = value if isinstance(value, list | tuple) else [value]
    return dict(zip(names, values, strict=False))


def _is_kerass_own(loss: Any) -> bool:
    """Tell a loss of Keras from a user's own, whatever its name."""
    if loss is None or isinstance(loss, str):
        return loss is None or _registered(loss) is None
    return _keras.is_own(loss)


def _registered(name: str) -> Any:
    return keras.saving.get_registered_object(name)


def _loss_kind(loss: Any) -> str:
    """Name a loss whose labels can be checked; nothing for any other."""
    if loss is None or not _is_kerass_own(loss):
        return ""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    kind = name.lower().replace("_", "")
    known = ("categoricalcrossentropy", "sparsecategoricalcrossentropy", "binarycrossentropy")
    return kind if kind in known else ""


def _check_target(name: str, y: npt.NDArray[Any], shape: tuple[int | None, ...], loss: Any) -> None:
    kind = _loss_kind(loss)
    classes = shape[-1] if shape else None
    one_hot = y.ndim == len(shape) and y.shape[-1] == classes
    if kind == "categoricalcrossentropy" and not one_hot:
        raise ValueError(
            f"`{name}` must be one-hot, {classes} columns, for categorical_crossentropy; numbers go with "
            f"sparse_categorical_crossentropy. Received: shape {y.shape}"
        )
    if kind == "sparsecategoricalcrossentropy" and classes is not None:
        if one_hot and classes != 1:
            raise ValueError(
                f"`{name}` must be class numbers for sparse_categorical_crossentropy; one-hot rows go with "
                f"categorical_crossentropy. Received: shape {y.shape}"
            )
        ignored = getattr(loss, "ignore_class", None)
        right = (y >= 0) & (y < classes) | (y == ignored)
        _checks.require(name, y, right, f"classes from 0 to {classes - 1}")
    if kind == "binarycrossentropy":
        _checks.require(name, y, (y >= 0) & (y <= 1), "labels from 0 to 1")


def check_callbacks(callbacks: Any) -> list[keras.callbacks.Callback]:
    """Return a flat list; refuse what is no callback or needs every batch."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        raise TypeError("`callbacks` must be a list of callbacks. Received: CallbackList")
    checked = keras.tree.flatten(callbacks) if callbacks else []
    for callback in checked:
        name = type(callback).__name__
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(f"`callbacks` must be keras.callbacks.Callback objects. Received: {name}")
        for hook in _BATCH_HOOKS:
            if not _acts_at_epochs(callback, hook):
                raise TypeError(
                    "`callbacks` must act at epochs, as all batches are one call; "
                    f"use model.fit for one that needs every batch. Received: {name}, which has {hook}"
                )
    return list(checked)


def overrides(callback: keras.callbacks.Callback, hook: str) -> Any:
    """Return the class, or the callback itself, that has written a hook; None where it does nothing."""
    if hook in vars(callback):
        return callback
    owner = next(cls for cls in type(callback).__mro__ if hook in vars(cls))
    return None if owner is keras.callbacks.Callback else owner


def _acts_at_epochs(callback: keras.callbacks.Callback, hook: str) -> bool:
    """Say whether a callback leaves the hook alone, or is Keras's own and can do without."""
    owner = overrides(callback, hook)
    if owner in (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore):
        return bool(callback.save_freq == "epoch")
    if owner is keras.callbacks.TensorBoard:
        return not _keras.needs_batches(callback)
    return owner in (None, keras.callbacks.ProgbarLogger, keras.callbacks.TerminateOnNaN)


def check_many_models(models: Any) -> list[keras.Model]:
    """Refuse what is no list of models, and models that share what training changes."""
    if isinstance(models, keras.Model) or not isinstance(models, Sequence):
        raise TypeError(f"`models` must be a list of compiled models. Received: {type(models).__name__}")
    for model in models:
        check_model(model)
    owners: dict[int, str] = {}
    for i, model in enumerate(models, 1):
        metrics = [each for each in _objects(model) if isinstance(each, keras.metrics.Metric)]
        for part in [*_keras.all_layers(model), model.optimizer, *metrics]:
            owner = owners.setdefault(id(part), f"model {i}")
            if owner != f"model {i}":
                same = part is model
                what = "is the same object as" if same else f"shares {type(part).__name__} {part.name!r} with"
                raise ValueError(
                    "`models` must be models of their own, with layers, optimizer and metrics of their own, "
                    f"or each would go on where another one stopped. Received: model {i} {what} {owner}"
                )
    return list(models)


def _objects(model: keras.Model) -> list[Any]:
    """Return what was passed to `compile`."""
    return list(keras.tree.flatten(_keras.compile_settings(model)))


def check_many_callbacks(callbacks: Any, count: int) -> list[list[keras.callbacks.Callback]]:
    """Return a list of callbacks for each model."""
    if callbacks is None:
        return [[] for _ in range(count)]
    if callable(callbacks):
        callbacks = [callbacks(i) for i in range(count)]
    if (
        not isinstance(callbacks, list | tuple)
        or len(callbacks) != count
        or isinstance(callbacks[0], keras.callbacks.Callback)
    ):
        raise TypeError(
            "`callbacks` must be a function from a model's position to its list of callbacks, "
            f"or one list for each of the {count} models. Received: {callbacks!r}"
        )
    checked = [check_callbacks(each) for each in callbacks]
    everything = [id(callback) for each in checked for callback in each]
    if len(set(everything)) < len(everything):
        raise TypeError("`callbacks` must differ from model to model. Received: one callback for several")
    return checked


def check_splits(splits: Any, count: int, n: int) -> list[tuple[RowNumbers, RowNumbers]]:
    """Return training and validation row numbers for each model."""
    splits = list(splits)
    if len(splits) != count:
        raise ValueError(
            f"`splits` must have one pair for each of the {count} models. Received: {len(splits)}"
        )
    checked = []
    for i, split in enumerate(splits):
        if not isinstance(split, list | tuple) or len(split) != 2:
            raise ValueError(
                f"`splits[{i}]` must be a pair of row numbers, to train and to validate on. "
                f"Received: {split!r:.80}"
            )
        rows, validation_rows = split
        pair = np.asarray(rows), np.asarray([] if validation_rows is None else validation_rows)
        for part in pair:
            wrong = part.ndim != 1 or (
                part.size and (part.dtype.kind not in "iu" or part.min() < 0 or part.max() >= n)
            )
            if wrong or not pair[0].size:
                raise ValueError(
                    f"`splits[{i}]` must be row numbers below n={n}, some to train on. Received: {part!r}"
                )
        checked.append((pair[0].astype(np.int64), pair[1].astype(np.int64)))
    return checked


def check_build_model(model: Any, build_model: Any) -> keras.Model:
    """Refuse a function that does not return a compiled model."""
    if not isinstance(model, keras.Model):
        name = getattr(build_model, "__name__", type(build_model).__name__)
        parameters = str(inspect.signature(build_model))
        raise TypeError(
            f"`build_model` must return a compiled model. Received: {model!r:.60} from {name}{parameters}"
        )
    check_model(model)
    return model
