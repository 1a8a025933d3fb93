"""Each private name of TensorFlow that the toolkit reads or replaces, in a function that says why.

`tests/test_tensorflow_private.py` holds each to it, as that of `_keras` does for Keras.
"""

import contextlib
import functools
import itertools
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import context
from tensorflow.python.framework import ops
from tensorflow.python.ops.parallel_for import pfor

_TELLING = "--tf_xla_disable_constant_folding=true"
_COUNT = ops.uid
_OWN_COUNT = itertools.count(10**12)  # of numbers that TensorFlow's own count never reaches


def reads_settings_now() -> bool:
    """Let TensorFlow read TF_XLA_FLAGS, and tell whether it did: it does so once in a process.

    Otherwise it would at its first operation, or at its first look at the devices of the machine.
    """
    flags = os.environ.get("TF_XLA_FLAGS", "")
    os.environ["TF_XLA_FLAGS"] = (
        f"{flags} {_TELLING}"  # of all flags, one that can be asked for, and taken back
    )
    told = bool(pywrap_tfe.TF_GetXlaConstantFoldingDisabled())
    os.environ["TF_XLA_FLAGS"] = flags
    if told and _TELLING not in flags:
        pywrap_tfe.TF_SetXlaConstantFoldingDisabled(False)
    return told


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Put back the random states of Python, NumPy and TensorFlow, whatever is drawn meanwhile."""
    tensorflows = getattr(context.context(), "_rng", None)  # there is one where a seed was set
    states = random.getstate(), np.random.get_state(), tensorflows and tensorflows.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        if tensorflows and tensorflows.getstate() != states[2]:
            tensorflows.setstate(states[2])
            context.context().clear_kernel_cache()  # a kernel with the same seed would go on where it was


@contextlib.contextmanager
def steady_names() -> Iterator[None]:
    """Let TensorFlow number functions that are traced meanwhile by a count that only they move.

    Its own count goes on with each tensor that there is, so with the time of day: callbacks, say, are called
    after so many seconds. XLA finds what it has compiled before by these names.
    """
    ops.uid = lambda: next(_OWN_COUNT)
    try:
        yield
    finally:
        ops.uid = _COUNT


def gpu_memory() -> int:
    """Return how many bytes of the largest GPU TensorFlow may use."""
    from tensorflow.python.client import device_lib

    devices = device_lib.list_local_devices()
    return max(int(device.memory_limit) for device in devices if device.device_type == "GPU")


@functools.cache
def complete_vectorized_map() -> None:
    """Teach `tf.vectorized_map` the ops that it lacks and that stacked models need."""
    converters: dict[str, Callable[[Any], Any]] = {
        "Bitcast": _vectorize_bitcast,  # for the accuracy of class numbers
        "StatelessRandomGetKeyCounter": _vectorize_draws,
        "StatelessRandomUniformV2": _vectorize_draws,
        "StatelessRandomNormalV2": _vectorize_draws,
    }
    for name, converter in converters.items():
        if name not in pfor._pfor_converter_registry:  # or TensorFlow has come to know it
            pfor.RegisterPFor(name)(converter)


def _vectorize_bitcast(pfor_input: Any) -> Any:
    return pfor.wrap(tf.bitcast(pfor_input.stacked_input(0), pfor_input.get_attr("type")), True)


def _vectorize_draws(pfor_input: Any) -> Any:
    """Draw for one model after the other, from the seed of each: so the numbers are those of each alone."""
    operation = pfor_input.op
    models = next(value.t.shape[0] for value in pfor_input.inputs if value.is_stacked)
    columns = [
        tf.unstack(value.t, models) if value.is_stacked else [value.t] * models for value in pfor_input.inputs
    ]
    inputs = [argument.name for argument in operation.op_def.input_arg]
    attributes = {
        a.name: pfor_input.get_attr(a.name) for a in operation.op_def.attr if a.name in ("dtype", "alg")
    }
    draw = getattr(tf.raw_ops, operation.type)
    drawn = [draw(**dict(zip(inputs, row, strict=True)), **attributes) for row in zip(*columns, strict=True)]
    if len(operation.outputs) == 1:
        return pfor.wrap(tf.stack(drawn), True)
    return [pfor.wrap(tf.stack(column), True) for column in zip(*drawn, strict=True)]
