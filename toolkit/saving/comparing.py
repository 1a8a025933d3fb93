"""Let Keras write a model, and tell whether what its file gives back is the same model."""

import contextlib
import functools
import inspect
import itertools
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from toolkit import _keras, _tensorflow
from toolkit.saving.config import nodes
from toolkit.saving.reasons import lost

# Attributes that are others in another process, or after the first batch.
_OF_A_PROCESS = [
    *("name", "_name", "built", "_built", "_variables", "_path", "_trainable_variables_indices"),
    *("_exclude_from_weight_decay_cache", "_self_unconditional_dependency_names"),
    "_var_to_optimizer_idx",
]
_BY_USE = " (set by use)"
_TAKE_IT = "Where that matters, take it in `__init__` and return it by `get_config`."


def write(model: Any, path: Path) -> None:
    """Let Keras write a model; raise where it is known that it cannot make the model again."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: {model!r}")
    if not model.built:
        way = "call it on data once, or `model.build((None, columns))`"
        raise ValueError(f"`model` must be built before it is saved: {way}. Received: {model!r}")
    name = keras.saving.get_registered_name(type(model))
    if keras.saving.get_registered_object(name) not in (None, type(model)):
        raise lost(f"another class is registered under its name, {name!r}. Register it with `name=...`.")
    try:
        with warnings.catch_warnings(), _keras.quick_walk():
            warnings.filterwarnings("error", "(?s).*lambda")
            model.save(path)
    except (NotImplementedError, TypeError) as error:
        raise lost(
            f"{error}\nAdd to the class: `def get_config(self): return {{**super().get_config(), 'units': "
            "self.units}`, with the arguments of its `__init__`."
        ) from error
    except UserWarning as error:
        raise lost("it holds a lambda. Write a function and register it.") from error


def compare(model: Any, loaded: Any, config: bytes) -> None:
    """Raise unless a model that was loaded is the model; warn of what is lost and may matter.

    Args:
        model: A model.
        loaded: What its file gives.
        config: What its file says of classes and their settings, as JSON.
    """
    adapted = {_folder(variable) for variable in model.weights if "lora" in variable.path}
    if adapted:
        _warn("LoRA's factors were added to the kernels. After a load, call `enable_lora` to train on.")
    weights = _weights(model, loaded)
    if differ := _weights_that_differ(weights, adapted):
        raise lost(f"other weights: {', '.join(differ[:5])}")
    pairs = list(zip(_keras.all_layers(model), _keras.all_layers(loaded), strict=False))
    for one, other in pairs:
        if hasattr(one, "get_vocabulary") and one.get_vocabulary() != other.get_vocabulary():
            raise lost(
                f"the vocabulary of {one.name} would be another one, as that of words with a line end is. "
                "Give it to the layer as `vocabulary=`, without such words."
            )
    frozen = [each.path for each, other in weights if each.trainable != other.trainable]
    if frozen := [path for path in frozen if path.rpartition("/")[0] not in adapted]:
        raise lost(
            f"`trainable` of {', '.join(frozen[:5])} is not saved. Set it where the class makes its parts, "
            "such as `self.base.trainable = False` in `__init__`, or for a whole layer."
        )
    for name, value, new in _differences(_compiled(model), _compiled(loaded)):
        if "exclude_from_weight_decay" in name:
            _warn(f"{name} is not saved. After a load, call `optimizer.exclude_from_weight_decay` again.")
        elif _BY_USE in name:
            _warn(f"{name} is {value} and would be {new}. {_TAKE_IT}")
        else:
            raise lost(
                f"{name} is {value} and would be {new}. Keras does not save it: return it by `get_config` of "
                "a class of your own, or write a registered function with the value in it."
            )
    for one, other in pairs:
        _compare_attributes(one, other)
    if not _is_settled(loaded, config):
        compare_predictions(model, loaded)


def _is_settled(loaded: Any, config: bytes) -> bool:
    """Tell whether equal weights mean equal predictions: all is layers of Keras, with the same settings."""

    def unnumbered(value: dict[str, Any]) -> dict[str, Any]:
        return {key: each for key, each in value.items() if key != "shared_object_id"}

    settings, own = json.loads(config, object_hook=unnumbered), keras.saving.get_custom_objects()
    if any(isinstance(value, str) and (value in own or ".ops." in value) for _, _, value in nodes(settings)):
        return False
    with _keras.sharing_scope():
        again = json.dumps(keras.saving.serialize_keras_object(loaded))
    return bool(json.loads(again, object_hook=unnumbered) == settings)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)


def _folder(variable: Any) -> str:
    return str(variable.path.rpartition("/")[0])


def _weights(model: Any, loaded: Any) -> list[tuple[Any, Any]]:
    """Pair the weights but LoRA's: in order, or by names where they are the same in a layer in another order.

    A layer that was quantized makes its variables in another order than one that is loaded.
    """
    lists = [[each for each in one.weights if "lora" not in each.path] for one in (model, loaded)]
    if len(lists[0]) != len(lists[1]):
        raise lost(f"other weights: {len(lists[0])} would be {len(lists[1])}")
    pairs = list(zip(*lists, strict=True))
    start = 0
    for _, group in itertools.groupby(pairs, lambda pair: _folder(pair[0])):
        mine, others = zip(*group, strict=True)
        names = {other.name: other for other in others}
        if len(names) == len(mine) and names.keys() == {each.name for each in mine}:
            pairs[start : start + len(mine)] = [(each, names[each.name]) for each in mine]
        start += len(mine)
    return pairs


def _weights_that_differ(pairs: list[tuple[Any, Any]], adapted: set[str]) -> list[str]:
    """Name the weights of a model that are others in the one that was loaded, but for those LoRA adapted."""
    return [
        variable.path
        for variable, other in pairs
        if not _keras.same_bits(*map(_keras.as_array, (variable, other)))
        if _folder(variable) not in adapted
    ]


def _compiled(model: Any) -> dict[str, str]:
    facts: dict[str, str] = {}
    settings = _keras.compile_settings(model)
    if settings:
        settings["optimizer"] = model.optimizer  # which may have changed since
    _collect("", settings, facts, set())
    return facts


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back, but for keys: 0 is no "0"."""
    if isinstance(value, tf.Tensor) and not tf.is_symbolic_tensor(value):
        value = value.numpy()
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        texts = int | float | None  # what `json` writes as if it were text
        plain = map(_plain, value)
        keys = [f"{type(key).__name__} {key}" if isinstance(key, texts) else key for key in plain]
        return dict(zip(keys, map(_plain, value.values()), strict=True))
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield attributes with their names; functions that a user's own class has, as theirs."""
    for name, value in vars(thing).items():
        if not callable(value) or not hasattr(value, "__name__"):
            yield name, value
        elif not _keras.is_own(thing):
            # A config says of `tf.nn.relu` what it says of Keras's own, which comes back.
            library = str(value.__module__).split(".")[0] in ("keras", "tensorflow")
            told = value.__name__ if library else f"{value.__module__}.{value.__qualname__}"
            yield name, f"{told} {hash(value.__code__)}" if "<lambda>" in told else told


def _collect(where: str, value: Any, facts: dict[str, str], seen: set[int]) -> None:
    """Write down what a value says of itself, but for variables, layers and what draws random numbers."""
    if isinstance(value, keras.Variable | keras.Layer | keras.Initializer | keras.random.SeedGenerator):
        return
    if tf.is_symbolic_tensor(value) or (isinstance(value, list | tuple | dict) and not value):
        return
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        facts[where] = json.dumps(_plain(value), sort_keys=True)
        return
    if isinstance(value, np.ndarray | np.generic | tf.Tensor | complex | bytes | re.Pattern):
        facts[where] = str(_plain(value))
    elif isinstance(value, set | frozenset):
        facts[where] = f"{len(value)} things"  # such as ids, which are others
    elif id(value) not in seen:
        seen.add(id(value))
        items: Any = ()
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list | tuple):
            items = enumerate(value)
        elif hasattr(value, "get_config") and not isinstance(value, type):
            facts[where] = type(value).__name__
            items = ((_told(value, name), each) for name, each in _attributes(value))
        for name, each in items:
            if name not in _OF_A_PROCESS:
                _collect(f"{where}.{str(name).lstrip('_')}".lstrip("."), each, facts, seen)


def _told(thing: Any, name: str) -> str:
    """Return the name of an attribute, marked where all that its object was made of comes back without it."""
    if _keras.is_own(thing) or name in _OF_A_PROCESS:
        return name
    parameters = list(inspect.signature(type(thing).__init__).parameters.values())[1:]
    arguments = {each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
    settings = thing.get_config().keys()
    return f"{name}{_BY_USE}" if arguments <= settings and name.lstrip("_") not in settings else name


def _differences(facts: dict[str, str], others: dict[str, str]) -> list[tuple[str, str, str]]:
    names = facts.keys() | others.keys()
    found = [(name, facts.get(name), others.get(name)) for name in sorted(names)]
    return [(name, str(one)[:300], str(other)[:300]) for name, one, other in found if one != other]


def _compare_attributes(layer: Any, other: Any) -> None:
    """Raise or warn where a layer has other settings: arguments of its class, or what else it has."""
    if type(layer) is not type(other):
        return
    arguments = inspect.signature(type(layer).__init__).parameters
    own = not _keras.is_own(layer)
    facts: list[dict[str, str]] = [{}, {}]
    for each, its_facts in zip((layer, other), facts, strict=True):
        for name, value in _attributes(each):
            if name in arguments or (own and not name.startswith("_") and name not in _of_any_model()):
                _collect(name, value, its_facts, set())
    for name, value, new in _differences(*facts):
        if name.startswith("lora_") and not own:  # told with the weights
            continue
        text = f"{name} of {layer.name} is {value} and would be {new}"
        if name.split(".")[0] not in arguments or _BY_USE in name:
            _warn(f"{text}. {_TAKE_IT}")
        elif name != "name":
            raise lost(f"{text}. `get_config` must return each argument of `__init__`.")


@functools.cache
def _of_any_model() -> set[str]:
    """Return the attributes of a model that say nothing of what it computes."""
    set_by_use = {"history", "stop_training", "stop_evaluating", "stop_predicting"}
    return {*vars(keras.Model(name="any")), *set_by_use, "inputs", "outputs"}


@contextlib.contextmanager
def _as_it_was(model: Any) -> Iterator[None]:
    """Put back what a call changes: attributes, such as how often a layer was called, and random states."""
    before = [(layer, dict(vars(layer))) for layer in _keras.all_layers(model)]
    values = [each for _, attributes in before for each in attributes.values()]
    plain = [each for each in values if type(each).__module__.startswith(("builtins", "keras."))]
    inside: list[tuple[Any, Any]] = [(each, each.copy()) for each in plain if isinstance(each, list | dict)]
    numbers = [(each, each.numpy()) for each in values if isinstance(each, tf.Variable)]
    try:
        with _tensorflow.random_state_kept():
            yield
    finally:
        for layer, attributes in before:
            vars(layer).clear()
            vars(layer).update(attributes)
        for each, copy in inside:  # past Keras's lists, which note what is added
            kind: Any = list if isinstance(each, list) else dict
            kind.clear(each)
            (kind.extend if kind is list else kind.update)(each, copy)
        for variable, number in numbers:
            variable.assign(number)


def compare_predictions(model: Any, loaded: Any) -> None:
    """Raise where a model and one that was loaded predict otherwise for generated rows."""
    with _as_it_was(model):
        predicted = try_to_predict(model)
    if isinstance(predicted, Exception):
        _warn("only weights were compared: no row could be generated for predictions")
        return
    x, prediction = predicted
    with _as_it_was(loaded):
        if _close(prediction, _predict(loaded, x)):
            return
    with _as_it_was(model):
        again = _predict(model, x)
    if _close(prediction, again):
        raise lost("the predictions are not equal. `get_config` must return what `call` uses.")
    _warn("only weights were compared: two calls of the model on the same rows gave other predictions")


def try_to_predict(model: Any) -> tuple[dict[str, Any], Any] | Exception:
    """Return a generated row, as arguments of `call`, with what the model predicts; or why it cannot.

    Sizes that the model leaves open are large first: of an image that is smaller than its kernel, a
    convolution by oneDNN returns whatever lay in memory, without an error.
    """
    failure = Exception()
    for unknown in (256, 32, 4):
        try:
            x = _rows(model, unknown)
            return x, _predict(model, x)
        except Exception as error:
            failure = error
    return failure


def _rows(model: Any, unknown: int) -> dict[str, Any]:
    """Generate arguments of `call`, with `unknown` in place of sizes that are open."""
    random_state = np.random.default_rng(0)
    tables = any(vars(layer).keys() & {"input_dim", "num_tokens"} for layer in _keras.all_layers(model))

    def rows(spec: Any, dtype: str) -> Any:
        if isinstance(spec, keras.KerasTensor):
            return rows(tuple(spec.shape), spec.dtype)
        if isinstance(spec, dict):
            return {key: rows(value, dtype) for key, value in spec.items()}
        if not all(size is None or isinstance(size, int) for size in spec):
            return type(spec)(rows(value, dtype) for value in spec)
        shape = [1 if size is None else size for size in spec[:1]] + [size or unknown for size in spec[1:]]
        if dtype == "string":
            return tf.fill(shape, "a")
        if tables or not dtype.startswith(("float", "bfloat")):
            return tf.cast(random_state.integers(0, 2, shape), dtype)  # rows of any table
        return tf.cast(random_state.normal(size=shape), dtype)

    if getattr(model, "inputs", None):
        return {"": rows(_keras.functional(model).input, "float32")}
    built = model.get_build_config() or {}
    shapes = built.get("shapes_dict") or {"": built["input_shape"]}
    return {name.removesuffix("_shape"): rows(shape, "float32") for name, shape in shapes.items()}


def _predict(model: Any, x: dict[str, Any]) -> Any:
    """Call without a trace, and with what is not saved set to zeros: states of the last batch, and seeds."""
    kept = set(map(id, model.weights))
    stateful = [layer for layer in _keras.all_layers(model) if getattr(layer, "stateful", False)]
    states = keras.tree.flatten([layer.states for layer in stateful])
    states += [variable for variable in model.variables if id(variable) not in kept]
    with keras.StatelessScope([(state, keras.ops.zeros_like(state)) for state in states]):
        return model(x[""], training=False) if "" in x else model(**x, training=False)


def _close(one: Any, other: Any) -> bool:
    """Tell whether predictions are equal but for rounding; ragged and sparse ones part by part."""
    flat = [tf.nest.flatten(each, expand_composites=True) for each in (one, other)]
    for pair in zip(*flat, strict=True):
        part, another = map(np.asarray, pair)
        if part.dtype.kind not in "OSU":
            part, another = part.astype(np.complex128), another.astype(np.complex128)
            same = part.shape == another.shape and np.allclose(part, another, 1e-4, 1e-5, equal_nan=True)
        else:
            same = np.array_equal(part, another)
        if not same:
            return False
    return True
