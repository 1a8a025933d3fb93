"""Which models may be trained as one stack: those that consist of nothing but what is proven to be exact.

Each name in the lists is held by a test that trains it in a stack and alone.
"""

import contextlib
import json
import math
import warnings
from typing import Any

import keras

from toolkit import _keras
from toolkit.training import checks
from toolkit.training.arrays import Table
from toolkit.training.members import Member
from toolkit.training.progress import LOG

# fmt: off
LAYERS = [
    "InputLayer", "Dense", "EinsumDense", "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax",
    "Identity", "Flatten", "Reshape", "Permute", "RepeatVector", "Concatenate", "Add", "Subtract",
    "Multiply", "Average", "Maximum", "Minimum", "Dropout", "SpatialDropout1D", "SpatialDropout2D",
    "GaussianNoise", "GaussianDropout", "BatchNormalization", "LayerNormalization", "UnitNormalization",
    "Normalization", "Rescaling", "Embedding", "MaxPooling1D", "MaxPooling2D", "GlobalMaxPooling1D",
    "GlobalMaxPooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "ZeroPadding1D",
    "ZeroPadding2D", "Cropping1D", "Sequential", "Functional",
]
LOSSES = [
    "MeanSquaredError", "MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanSquaredLogarithmicError",
    "Huber", "LogCosh", "BinaryCrossentropy", "CategoricalCrossentropy", "SparseCategoricalCrossentropy",
    "KLDivergence", "Poisson", "Hinge", "SquaredHinge", "CategoricalHinge", "CosineSimilarity",
]
METRICS = [  # means over rows, which do not depend on the size of a batch
    "MeanSquaredError", "MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanSquaredLogarithmicError",
    "LogCoshError", "BinaryAccuracy", "CategoricalAccuracy", "SparseCategoricalAccuracy",
    "BinaryCrossentropy", "CategoricalCrossentropy", "SparseCategoricalCrossentropy", "KLDivergence",
    "Poisson", "Hinge", "SquaredHinge", "CategoricalHinge", "CosineSimilarity",
]
COUNTS = ["RootMeanSquaredError", "AUC", "Precision", "Recall"]  # metrics that keep sums of their own
OPTIMIZERS = [  # all that work element by element
    "SGD", "RMSprop", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl", "Lion",
]
SPARSE_OPTIMIZERS = ["SGD", "Lion"]  # the others treat each gradient of an embedding's row by itself
BLIND = ["EarlyStopping", "CSVLogger", "History"]  # look at logs alone, unless they restore weights
READERS = ["EarlyStopping", "ModelCheckpoint"]  # look at a model and change it at the end alone
WRITERS = ["LearningRateScheduler", "ReduceLROnPlateau"]  # change the learning rate
# fmt: on
_OPTIONS = ["clipnorm", "global_clipnorm", "gradient_accumulation_steps", "loss_scale_factor"]
_HOOKS = [  # in which a user's callback may do what it likes: between epochs the models have all their values
    "on_epoch_end", "on_train_end", "set_model", "set_params",
]  # fmt: skip
_ALL_HOOKS = [name for name in dir(keras.callbacks.Callback) if name.startswith("on_")]


def groups(members: list[Member], table: Table) -> list[list[Member]]:
    """Put models together that can be trained as one; the log says who goes alone, and why."""
    found: dict[Any, list[Member]] = {}
    for member in members:
        reason = why_alone(member, table) if len(members) > 1 else "it is the only one"
        key: Any = member.index
        if reason:
            LOG.info("%s alone, because %s", member.name, reason)
        else:
            settings = member.settings
            steps = math.ceil(len(member.rows) / settings.batch_size)
            key = describe(member.model), steps, len(member.validation_rows) > 0
        found.setdefault(key, []).append(member)
    for key, group in found.items():
        if len(group) == 1 and not isinstance(key, int):
            LOG.info("%s alone, because no other is like it", group[0].name)
    return list(found.values())


def why_alone(member: Member, table: Table) -> str:
    """Say why a model cannot be trained in a stack; nothing where it can."""
    model: Any = member.model
    if table.sparse or any(leaf is None or leaf.dtype.kind in "US" for leaf in table.leaves):
        return "the data are sparse, or strings, or lack a part"
    if type(model).__name__ not in ("Sequential", "Functional") or not _keras.is_own(model):
        return f"{type(model).__name__} is a class of its own"
    if not model.built:
        return "it is not built"
    overridden = [name for name in ("train_step", "test_step", "call", "compute_loss") if name in vars(model)]
    if overridden:
        return f"it has a {overridden[0]} of its own"
    if len(model.outputs) > 1:  # Keras weighs the loss of each by sizes that it knows, or does not
        return "it has several outputs"
    settings = member.settings
    if settings.epochs <= settings.initial_epoch:
        return "there is no epoch to train"
    if settings.validation_steps is not None or settings.validation_freq != 1:
        return "validation_steps or validation_freq is set"
    if model.steps_per_execution != 1:
        return "steps_per_execution is set"
    reason = _why_not_layers(model) or _why_not_optimizer(model) or _why_not_compiled(model)
    return reason or next(filter(None, map(_why_not_callback, member.callbacks)), "")


def _why_not_layers(model: Any) -> str:
    for layer in _keras.all_layers(model):
        kind = type(layer).__name__
        if not _keras.is_own(layer) or kind not in LAYERS:
            return f"{kind} is not proven to be exact in a stack"
        if getattr(layer, "stateful", False) or getattr(layer, "unroll", False):
            return f"{kind} {layer.name!r} is stateful or unrolled"
        if layer.activity_regularizer is not None:
            return f"{kind} {layer.name!r} has an activity regularizer"
        if layer.dtype_policy.name != "float32" or layer.quantization_mode is not None:
            return f"{kind} {layer.name!r} computes in {layer.dtype_policy.name}"
        if getattr(layer, "mask_zero", False):
            return f"{kind} {layer.name!r} masks"
        if any(variable.constraint is not None for variable in layer.trainable_variables):
            return f"{kind} {layer.name!r} has a constraint"
        config = layer.get_config() if kind not in ("Sequential", "Functional") else {}
        if "__lambda__" in repr(config) or _holds_a_users(config):
            return f"{kind} {layer.name!r} holds a function or class of the user's"
    return ""


def _holds_a_users(config: Any) -> bool:
    """Say whether a configuration names a function or class that is not Keras's."""
    if isinstance(config, dict):
        if config.get("registered_name") or config.get("class_name") == "function":
            return True
        return any(map(_holds_a_users, config.values()))
    return isinstance(config, list | tuple) and any(map(_holds_a_users, config))


def _why_not_optimizer(model: Any) -> str:
    optimizer = model.optimizer
    kind = type(optimizer).__name__
    if not _keras.is_own(optimizer) or kind not in OPTIMIZERS:
        return f"{kind} is not proven to be exact in a stack"
    option = next((name for name in _OPTIONS if getattr(optimizer, name, None)), None)
    if option:
        return f"{kind} has {option}"
    if any("exclude_from_weight_decay" in name for name in vars(optimizer)):
        return f"{kind} excludes variables from weight decay"
    embedding = any(type(layer).__name__ == "Embedding" for layer in _keras.all_layers(model))
    if embedding and (kind not in SPARSE_OPTIMIZERS or optimizer.clipvalue):
        return f"{kind} treats each gradient of an Embedding's row by itself"
    return ""


def _why_not_compiled(model: Any) -> str:
    compiled = _keras.compile_settings(model)
    for loss in keras.tree.flatten(compiled["loss"]):
        if loss is not None and not _proven(loss, LOSSES, keras.losses.get):
            return f"the loss {_name(loss)} is not proven to be exact in a stack"
    for metric in keras.tree.flatten([compiled["metrics"], compiled["weighted_metrics"]]):
        named = isinstance(metric, str) and metric in ("accuracy", "acc", "crossentropy", "ce")
        if metric is not None and not named and not _proven(metric, METRICS + COUNTS, keras.metrics.get):
            return f"the metric {_name(metric)} is not proven to be exact in a stack"
    return ""


def _proven(thing: Any, names: list[str], get: Any) -> bool:
    """Say whether a loss or metric is of Keras and in a list; one called by its function's name, too."""
    if isinstance(thing, str):
        if keras.saving.get_registered_object(thing) is not None:
            return False
        thing = get(thing)
    if callable(thing) and hasattr(thing, "__name__"):  # Keras's functions have classes of like names
        return _keras.is_own(thing) and thing.__name__.replace("_", "") in {name.lower() for name in names}
    reduction = getattr(thing, "reduction", None)
    return (
        _keras.is_own(thing) and type(thing).__name__ in names and reduction in (None, "sum_over_batch_size")
    )


def _name(thing: Any) -> str:
    return thing if isinstance(thing, str) else getattr(thing, "__name__", type(thing).__name__)


def _why_not_callback(callback: keras.callbacks.Callback) -> str:
    kind = type(callback).__name__
    if is_kerass_own(callback):
        known = kind in {*BLIND, *READERS, *WRITERS}
        return "" if known else f"{kind} is not proven to be exact in a stack"
    hook = next(
        (name for name in _ALL_HOOKS if name not in _HOOKS and checks.overrides(callback, name)), None
    )
    return f"{kind} acts in {hook}" if hook else ""


def is_kerass_own(callback: keras.callbacks.Callback) -> bool:
    """Tell a callback of Keras from one that may run a user's code."""
    return _keras.is_own(callback) and type(callback) is not keras.callbacks.LambdaCallback


def is_blind(callback: keras.callbacks.Callback) -> bool:
    """Say whether a callback looks at the logs alone."""
    restores = getattr(callback, "restore_best_weights", False)
    return is_kerass_own(callback) and type(callback).__name__ in BLIND and not restores


def is_reader(callback: keras.callbacks.Callback) -> bool:
    """Say whether a callback changes no weight before the end."""
    return is_blind(callback) or (is_kerass_own(callback) and type(callback).__name__ in READERS)


def describe(model: keras.Model, whole: bool = False) -> str:
    """Describe the architecture and what it was compiled with, without the names of the layers.

    Without `whole`, learning rates, initial values and the statistics of Normalization stay out.
    """
    names = {layer.name: f"#{i}" for i, layer in enumerate(_keras.all_layers(model))}
    config: list[Any] = [[[list(variable.shape), variable.trainable] for variable in model.variables]]
    with warnings.catch_warnings(action="ignore"):  # of functions that could not be loaded again
        with contextlib.suppress(NotImplementedError):  # a class of the user's
            config.append(model.get_config())
        config.append(model.get_compile_config())
    return type(model).__name__ + json.dumps(
        _anonymous(config, names, whole), sort_keys=True, default=lambda item: type(item).__name__
    )


def _anonymous(config: Any, names: dict[str, str], whole: bool) -> Any:
    if isinstance(config, dict):
        free = {"name", "seed", "shared_object_id"}
        if not whole:
            free |= {"mean", "variance"} if "invert" in config else set()
            free |= {"learning_rate"} if isinstance(config.get("learning_rate"), float) else set()
        return {
            key: _anonymous(value, names, whole)
            for key, value in config.items()
            if key not in free and not key.endswith("_initializer")
        }
    if isinstance(config, list | tuple):
        return [_anonymous(item, names, whole) for item in config]
    return names.get(config, config) if isinstance(config, str) else config
