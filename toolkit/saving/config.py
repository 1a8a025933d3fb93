"""What `config.json` may name, and how much it may ask for."""

import inspect
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from toolkit import _keras
from toolkit.saving.reasons import reason, refuse_if

_CONFIG_DEPTH = 100
# Layers and calls in any file, and one more for so many bytes: each takes about 0.1 MB, weights apart.
_LAYERS, _BYTES_A_LAYER = 400, 25_000
_REBUILDS = 20_000  # layers of a Sequential model, squared: it is built anew for each of them
_COUNT = 2_000_000  # sum of the numbers in a config by which Keras may take memory or time
_SPARE = 1 << 18  # numbers of small weights that are made but not stored: seeds, states
_DTYPE = re.compile(r"(u?int|b?float|complex)\d+\w*|bool|string")
# fmt: off
# What `config.json` may name apart from what is registered in this process: Keras's classes of these kinds,
# functions of these modules, and values that it writes as if they were classes.
_KINDS = (
    keras.Operation, keras.Loss, keras.Metric, keras.Optimizer, keras.Initializer, keras.Regularizer,
    keras.optimizers.schedules.LearningRateSchedule, keras.constraints.Constraint, keras.DTypePolicy,
    keras.dtype_policies.DTypePolicyMap, keras.Quantizer, keras.quantizers.QuantizationConfig,
    keras.random.SeedGenerator,
)
_FUNCTIONS = ["keras.activations", "keras.losses", "keras.metrics"]
_TOOLS = ["get", "serialize", "deserialize"]  # functions there that no layer calls
_VALUES = ["__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"]
FORBIDDEN = ["Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"]  # hold code
# Layers that make layers or loops of their own.
_HEAVY = [
    "MultiHeadAttention", "GroupedQueryAttention", "AugMix", "RandAugment", "RNN", "LSTM", "GRU",
    "SimpleRNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D",
]
# Numbers that Keras counts up to while it builds.
_LOOPS = ["power_iterations", "num_ops", "num_chains", "chain_depth", "ngrams", "indices_or_sections", "num"]
_METRICS = ["num_classes", "num_thresholds"]  # sizes that no weight has
# Whole numbers that are no sizes, or sizes of what no layer holds.
_HARMLESS = [
    "seed", "salt", "shared_object_id", "keras_history", "value", "vocabulary", "bin_boundaries",
    "boundaries", "decay_steps", "first_decay_steps", "warmup_steps", "ema_overwrite_frequency",
    "mask_value", "mask_token", "oov_value", "oov_token", "num_bins", "max_tokens", "num_tokens",
    "vocabulary_size", "output_sequence_length", "batch_shape", "shape", "input_shape",
    "build_input_shape", "target_shape", "newshape", "size", "height", "width",
]
# fmt: on


def nodes(value: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield each value in nested lists and dicts with where it stands and its key."""
    values = [("config.json", "", value, 0)]
    while values:
        where, key, value, depth = values.pop()
        refuse_if(depth > _CONFIG_DEPTH, "config.json is nested too deeply")
        yield where, key, value
        if isinstance(value, dict):
            values += [(f"{where}.{name}"[-200:], name, each, depth + 1) for name, each in value.items()]
        elif isinstance(value, list):
            values += [(where, key, each, depth + 1) for each in value]


def check_config(config: dict[str, Any], size: int, stored: Counter[Any]) -> None:
    """Raise unless all classes, functions and sizes are such as may be built."""
    dimensions = {dimension for shape, _ in stored for dimension in shape}
    parts = layers = count = rebuilds = 0
    for where, key, value in nodes(config):
        if isinstance(value, dict) and "class_name" in value:
            parts += 1
            layers += _check_object(where, value)
            count += _held(where, value)
            if value["class_name"] == "Sequential" and isinstance(value.get("config"), dict):
                inside = value["config"].get("layers") or []
                nested = [each for _, key, each in nodes(inside) if key in ("", "layers")]
                rebuilds += len(inside) * sum(isinstance(each, dict) for each in nested)
        elif key == "inbound_nodes" and isinstance(value, dict) and "args" in value:
            inputs = [each.get("class_name") for _, _, each in nodes(value) if isinstance(each, dict)]
            if "__keras_tensor__" not in inputs:  # it would compute while it loads
                raise ValueError(f"{where} calls a layer on no input")
        elif key == "unroll" and value is True:
            raise ValueError(f"{where} unrolls a loop as long as its input. Save it with unroll=False")
        elif type(value) is int:
            if key in _LOOPS and value > 256:
                raise ValueError(f"{where} asks for {value:,} rounds or parts")
            if value > 0 and (key in _METRICS or (key not in _HARMLESS and value not in dimensions)):
                count += value * (value if key == "num_classes" else 1)
    refuse_if(count > _COUNT, f"config.json asks for {count:,} of something that is not stored")
    refuse_if(
        rebuilds > _REBUILDS,
        "config.json has a Sequential model of so many layers that Keras takes minutes. Write it as a "
        "functional model, keras.Model(inputs, outputs)",
    )
    most = _LAYERS + size // _BYTES_A_LAYER
    excess = layers > most or parts > 20 * most
    refuse_if(excess, f"config.json has {layers:,} layers and calls, {parts:,} parts; too many for its size")


def _check_object(where: str, value: dict[str, Any]) -> int:
    """Raise unless a class or function is one of Keras's for models, or registered; tell if it is a layer."""
    name, module, config = value["class_name"], value.get("module"), value.get("config")
    if name in _VALUES:
        dtype = str((config or {}).get("dtype")) if name in ("__tensor__", "__numpy__") else "bool"
        refuse_if(not _DTYPE.fullmatch(dtype), f"{where} has a value of a type that is no number")
        return int(name == "__keras_tensor__")
    called = config if name == "function" else name
    if not isinstance(called, str) or not isinstance(module, str | None):
        raise ValueError(f"{where} has a class or function without a name")
    if called in [*FORBIDDEN, "__lambda__"]:
        raise ValueError(
            f"{where} is a {called}, which holds code. Write a layer or function and register it"
        )
    registered = called if name == "function" else value.get("registered_name") or called
    if keras.saving.get_registered_object(str(registered)) is not None:
        return 1
    if name == "function":
        known = [getattr(sys.modules[each], called, None) for each in _FUNCTIONS]
        allowed = module in ("builtins", *_FUNCTIONS) and called not in _TOOLS
        if allowed and any(map(inspect.isfunction, known)):
            return 0
    elif module and module.split(".")[0] == "keras":
        found = getattr(sys.modules.get(module), called, None)
        if inspect.isclass(found) and issubclass(found, _KINDS) and found.__name__ not in FORBIDDEN:
            return int(issubclass(found, keras.Operation)) * (4 if found.__name__ in _HEAVY else 1)
    raise ValueError(
        f"{where} is {called!r}, which is neither Keras's own, for models, nor registered in this process. "
        "Write @keras.saving.register_keras_serializable(package=...) above it, and import its module first"
    )


def _held(where: str, value: dict[str, Any]) -> int:
    """Count the numbers that a layer holds beside its weights: a mean for each input, states for each row."""
    config = value.get("config")
    if not isinstance(config, dict):
        return 0
    try:
        if value["class_name"] == "Normalization" and config.get("mean") is not None:
            axes, shape = config.get("axis", -1), value["build_config"]["input_shape"]
            axes = [] if axes is None else axes if isinstance(axes, list) else [axes]
            return math.prod(shape[axis] for axis in axes)
        if config.get("stateful"):
            rows, _, *sizes = value["build_config"]["input_shape"]
            counts = [each for _, key, each in nodes(config) if type(each) is int and key not in _HARMLESS]
            return math.prod([rows, *sizes, max(counts)])
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"{where} does not say which input it was built for") from None
    return 0


class _Declared(list[Any]):
    """Takes the place of Keras's list of weights without values; refuses one that is not stored."""

    def __init__(self, stored: Counter[tuple[tuple[int, ...], int]]) -> None:
        super().__init__()
        self.stored, self.spare, self.reason = stored.copy(), _SPARE, ""

    def append(self, variable: Any) -> None:
        shape, itemsize = tuple(variable.shape), tf.as_dtype(variable.dtype).size
        size = math.prod(shape)
        if self.stored[shape, itemsize]:
            self.stored[shape, itemsize] -= 1
        elif size <= min(1024, self.spare):
            self.spare -= size
        else:
            weight = f"a weight of shape {shape}, {size * itemsize:,} bytes"
            self.reason = f"config.json declares {weight}, that is not stored"
            raise ValueError(self.reason)


def check_declared(config: dict[str, Any], stored: Counter[tuple[tuple[int, ...], int]]) -> None:
    """Build the model with weights that have shapes but no values, and hold the shapes to what is stored."""
    for _, _, value in nodes(config):
        if isinstance(value, dict):
            value.pop("compile_config", None)  # optimizers have values at once, and so have states
            if value.get("stateful") is True:
                value["stateful"] = False
    declared = _Declared(stored)
    try:
        with _keras.sharing_scope(), _keras.declared_into(declared):
            keras.saving.deserialize_keras_object(config)
    except Exception as error:
        text = declared.reason or f"its config does not build: {reason(error)}"
        if "create a variable while in a stateless scope" in text:
            text = "a class makes a keras.Variable of a value; use add_weight(shape=..., initializer=...)"
        raise ValueError(text) from error
