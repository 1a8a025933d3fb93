"""The allow-list: which classes and functions `config.json` may name; all others are refused."""

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

import keras

from toolkit.saving.reasons import refuse_if

_DEPTH = 100  # Keras and its libraries go down in recursion
_DTYPE = re.compile(r"(u?int|b?float|complex)\d+\w*|bool|string")
# fmt: off
# What `config.json` may name apart from what is registered in this process: Keras's classes of these kinds,
# functions of these modules, and values that it writes as if they were classes.
_KINDS = (
    keras.Operation, keras.Loss, keras.Metric, keras.Optimizer, keras.Initializer, keras.Regularizer,
    keras.optimizers.schedules.LearningRateSchedule, keras.constraints.Constraint, keras.DTypePolicy,
    keras.dtype_policies.DTypePolicyMap, keras.Quantizer, keras.quantizers.QuantizationConfig,
    keras.random.SeedGenerator, keras.optimizers.OptimizerMap,
)
_FUNCTIONS = ["keras.activations", "keras.losses", "keras.metrics"]
_TOOLS = ["get", "serialize", "deserialize"]  # functions there that no layer calls
_VALUES = ["__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"]
FORBIDDEN = ["Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"]  # hold code
# fmt: on


def nodes(value: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield each value in nested lists and dicts with where it stands and its key."""
    values = [("config.json", "", value, 0)]
    while values:
        where, key, value, depth = values.pop()
        refuse_if(depth > _DEPTH, "config.json is nested too deeply")
        yield where, key, value
        if isinstance(value, dict):
            values += [(f"{where}.{name}"[-200:], name, each, depth + 1) for name, each in value.items()]
        elif isinstance(value, list):
            values += [(where, key, each, depth + 1) for each in value]


def check_config(config: dict[str, Any]) -> None:
    """Raise unless all classes and functions are such as may be built, and layers are called on inputs."""
    for where, key, value in nodes(config):
        if isinstance(value, dict) and "class_name" in value:
            _check_object(where, value)
        elif key == "inbound_nodes" and isinstance(value, dict) and "args" in value:
            inputs = [each.get("class_name") for _, _, each in nodes(value) if isinstance(each, dict)]
            if "__keras_tensor__" not in inputs:  # it would compute while it loads
                raise ValueError(f"{where} calls a layer on no input")


def _check_object(where: str, value: dict[str, Any]) -> None:
    """Raise unless a class or function is one of Keras's for models, or registered."""
    name, module, config = value["class_name"], value.get("module"), value.get("config")
    if name in _VALUES:
        dtype = str((config or {}).get("dtype")) if name in ("__tensor__", "__numpy__") else "bool"
        refuse_if(not _DTYPE.fullmatch(dtype), f"{where} has a value of a type that is no number")
        return
    called = config if name == "function" else name
    if not isinstance(called, str) or not isinstance(module, str | None):
        raise ValueError(f"{where} has a class or function without a name")
    if called in [*FORBIDDEN, "__lambda__"]:
        raise ValueError(
            f"{where} is a {called}, which holds code. Write a layer or function and register it"
        )
    registered = called if name == "function" else value.get("registered_name") or called
    if keras.saving.get_registered_object(str(registered)) is not None:
        return
    if name == "function":
        known = [getattr(sys.modules[each], called, None) for each in _FUNCTIONS]
        allowed = module in ("builtins", *_FUNCTIONS) and called not in _TOOLS
        if allowed and any(map(inspect.isfunction, known)):
            return
    elif module and module.split(".")[0] == "keras":
        found = getattr(sys.modules.get(module), called, None)
        if inspect.isclass(found) and issubclass(found, _KINDS) and found.__name__ not in FORBIDDEN:
            return
    raise ValueError(
        f"{where} is {called!r}, which is neither Keras's own, for models, nor registered in this process. "
        "Write @keras.saving.register_keras_serializable(package=...) above it, and import its module first"
    )
