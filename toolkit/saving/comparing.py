"""Tell whether a model would come back from its file as it is."""

import contextlib
import json
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from toolkit import _keras
from toolkit.saving.reasons import lost


def refuse_what_would_not_come_back(model: Any) -> None:
    """Raise where it is known before anything is written that Keras cannot make the model again."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: {model!r}")
    if not model.built:
        way = "call it on data once, or `model.build((None, columns))`"
        raise ValueError(f"`model` must be built before it is saved: {way}. Received: {model!r}")
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)  # as fit does, or its state would be there in part
    try:
        with warnings.catch_warnings(record=True) as caught, _keras.sharing_scope():
            warnings.simplefilter("always")
            config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    except (NotImplementedError, TypeError) as error:
        raise lost(
            f"{error}\nAdd to the class: `def get_config(self): return {{**super().get_config(), 'units': "
            "self.units}`, with the arguments of its `__init__`."
        ) from error
    if any("lambda" in str(warning.message) for warning in caught):
        raise lost("it holds a lambda. Write a function and register it.")
    registered = keras.saving.get_registered_object(config.get("registered_name"))
    if registered not in (None, type(model)):
        raise lost(
            f"another class is registered under its name, {registered!r}. Register it with `name=...`."
        )


def compare(model: Any, loaded: Any) -> None:
    """Raise unless settings and predictions of a model that was loaded, weights compared, are the model's."""
    settings, others = _settings(model), _settings(loaded)
    for name in settings.keys() | others.keys():
        if settings.get(name) != others.get(name):
            raise lost(
                f"{name} is {settings.get(name)} and would be {others.get(name)}. Keras does not save it: "
                "write a registered function of y_true and y_pred with the value in it."
            )
    # In place of sizes that the model leaves open. Large ones first: of an image that is smaller than its
    # kernel, a convolution by oneDNN returns whatever lay in memory, without an error.
    for unknown in (256, 32, 4):
        try:
            x = _rows(model, unknown)
            prediction = _predict(model, x)
        except Exception:
            continue
        if not _close(prediction, _predict(loaded, x)):
            if _close(prediction, _predict(model, x)):
                raise lost("the predictions are not equal. `get_config` must return what `call` uses.")
            warnings.warn(
                "only weights were compared: two calls of the model on the same rows gave other predictions",
                stacklevel=3,
            )
        return
    warnings.warn("only weights were compared: no rows could be generated for predictions", stacklevel=3)


def _settings(model: Any) -> dict[str, str]:
    """What can be written as JSON of the optimizer, losses and metrics that the model was compiled with."""
    found = {}
    for path, value in keras.tree.flatten_with_path(_keras.compile_settings(model)):
        where = ".".join(map(str, path))
        if isinstance(value, keras.Loss | keras.Metric):
            attributes = vars(value)  # their get_config may lack what is lost
        else:
            attributes = value.get_config() if hasattr(value, "get_config") else {"": value}
        for name, attribute in attributes.items():
            if name not in ("_built", "_variables"):  # of a metric, when it has seen its first batch
                with contextlib.suppress(TypeError, ValueError):  # variables, functions: restored otherwise
                    found[f"{where}.{name.lstrip('_')}"] = json.dumps(attribute, sort_keys=True)
    return found


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
        shape = [2 if size is None else size for size in spec[:1]] + [size or unknown for size in spec[1:]]
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
