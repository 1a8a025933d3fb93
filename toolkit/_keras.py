"""Each private name of Keras that the toolkit reads or replaces, in a function that says why.

`tests/test_keras_private.py` holds each to it: a release that renames one, or changes its meaning, is noticed
there and not by a user.
"""

import contextlib
import functools
import logging
import math
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src import backend
from keras.src.backend.common import global_state
from keras.src.saving import saving_lib, serialization_lib
from keras.src.utils.python_utils import pythonify_logs
from keras.src.utils.rng_utils import get_random_seed

LOG = logging.getLogger("toolkit.training")
_DECLARING = threading.RLock()
_EXCHANGE = threading.Lock()
_quick_threads: list[int] = []  # those that are in `quick_sparse_products`

# Saving and loading


def safe_mode() -> bool | None:
    """Tell whether Keras refuses code in files: True or False where a scope or a user says so, else None."""
    mode: bool | None = global_state.get_global_attribute("safe_mode_saving")
    return mode


def safe_mode_scope(on: bool) -> contextlib.AbstractContextManager[None]:
    """Let nested objects of a config be made with this safe mode, whatever the process says."""
    scope: contextlib.AbstractContextManager[None] = serialization_lib.SafeModeScope(on)
    return scope


def sharing_scope() -> contextlib.AbstractContextManager[None]:
    """Let an object that occurs twice in a config be one object, as saving and loading a model do."""
    scope: contextlib.AbstractContextManager[None] = serialization_lib.ObjectSharingScope()
    return scope


@contextlib.contextmanager
def declared_into(variables: list[Any]) -> Iterator[None]:
    """Let each variable that an initializer would fill wait in a list, without a value: in this thread only.

    A variable that is made of a value, or given one, has it at once.
    """
    cls, thread = keras.Variable, threading.get_ident()
    fill, assign = cls._initialize_with_initializer, cls._direct_assign
    optimizers_assign = keras.Optimizer.assign  # which goes past the variable to its value

    def declare(variable: Any, initializer: Any) -> None:
        if threading.get_ident() != thread:
            fill(variable, initializer)
        else:
            variable._value, variable._initializer = None, initializer
            variables.append(variable)

    def give_or_assign(variable: Any, value: Any) -> None:
        if variable._value is None:
            variable._initialize(value)
            variable._initializer = None
        else:
            assign(variable, value)

    def assign_first(optimizer: Any, variable: Any, value: Any) -> None:
        waits = isinstance(variable, cls) and variable._value is None
        variable.assign(value) if waits else optimizers_assign(optimizer, variable, value)

    with _DECLARING:
        cls._initialize_with_initializer, cls._direct_assign = declare, give_or_assign
        keras.Optimizer.assign = assign_first
        try:
            yield
        finally:
            cls._initialize_with_initializer, cls._direct_assign = fill, assign
            keras.Optimizer.assign = optimizers_assign


def initialize(variable: Any) -> None:
    """Give a variable that waits the value that its initializer makes."""
    if variable._value is None:
        variable._deferred_initialize()


def load_state(model: Any, arrays: Mapping[str, Any], assets: Path, loaded: set[int]) -> None:
    """Give a model that is built its weights, optimizer state and, where the folder is there, assets.

    Args:
        model: The model.
        arrays: What its file holds, by names such as "/layers/dense/vars/0".
        assets: The folder of its assets, which need not be there.
        loaded: The ids of parts that have their state and are left out; those that get it are added.
    """
    loaded.discard(id(model))
    store, files = _Store(arrays), saving_lib.DiskIOStore(str(assets), mode="r") if assets.is_dir() else None
    failed, reasons = set[int](), dict[int, Any]()
    visits = {"visited_saveables": loaded, "failed_saveables": failed, "error_msgs": reasons}
    with quick_walk():
        saving_lib._load_state(model, weights_store=store, assets_store=files, inner_path="", **visits)
    if failed:
        saving_lib._raise_loading_failure(reasons)


def same_bits(one: Any, other: Any) -> bool:
    """Tell whether two arrays are equal in shape, type and bits, NaN for NaN, without a copy."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    numbers = f"u{math.gcd(one.nbytes, 8)}"  # whole numbers of as many bytes as there can be
    a, b = (np.ascontiguousarray(each).reshape(-1).view(numbers) for each in (one, other))
    return bool(np.array_equal(a, b))


def as_array(value: Any) -> Any:
    """Return a variable, a tensor or an array as an array: where that is possible, without a copy."""
    return np.asarray(tf.convert_to_tensor(value) if tf.is_tensor(value) else value)


@contextlib.contextmanager
def quick_walk() -> Iterator[None]:
    """Let Keras list the attributes that it leaves out of a saved model once a kind of object.

    It makes a layer for each layer otherwise, only to look at it.
    """
    list_them = saving_lib.get_attr_skipset
    saving_lib.get_attr_skipset = functools.cache(list_them)
    try:
        yield
    finally:
        saving_lib.get_attr_skipset = list_them


class _Store(saving_lib.H5IOStore):  # type: ignore[misc]
    """Stands for a file: gives its arrays to a model, and notes which the model would write otherwise."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays, self.differ = arrays, set(arrays)
        self.inside: dict[str, dict[str, None]] = {}
        for name in sorted(arrays):
            while name:
                name, _, part = name.rpartition("/")
                self.inside.setdefault(name, {})[part] = None

    def __bool__(self) -> bool:
        return True

    def get(self, path: str) -> "_Store":
        self.group = f"/{path}/vars" if path else "/vars"
        self._h5_entry_group = self.inside.get(self.group, {})
        return self

    def make(self, path: str, metadata: Any = None) -> "_Store":
        return self.get(path)

    def has_path(self, path: str) -> bool:
        return f"/{path}" in self.inside

    def __getitem__(self, key: str) -> Any:
        return self.arrays[f"{self.group}/{key}"]

    def __setitem__(self, key: str, value: Any) -> None:
        name = f"{self.group}/{key}"
        if name in self.arrays and same_bits(self.arrays[name], as_array(value)):
            self.differ.discard(name)
        else:
            self.differ.add(name)


def state_differences(model: Any, arrays: Mapping[str, Any], assets: Path) -> set[str]:
    """Name the arrays and assets that a model would save otherwise than they are stored, bit by bit.

    The arguments are those of `load_state`.
    """
    store, kept = _Store(arrays), any(hasattr(layer, "save_assets") for layer in all_layers(model))
    # Layers with factors of LoRA, which are zeros after a load, would write what they quantize anew.
    merging = [layer for layer in all_layers(model) if getattr(layer, "lora_enabled", False)]
    for layer in merging:
        layer.lora_enabled = False
    with tempfile.TemporaryDirectory() if kept else contextlib.nullcontext() as folder:
        try:
            files = saving_lib.DiskIOStore(folder, mode="r") if folder else None  # a folder as it is
            with quick_walk():
                saving_lib._save_state(model, store, files, inner_path="", visited_saveables=set())
        finally:
            for layer in merging:
                layer.lora_enabled = True
        one, other = (
            {
                path.relative_to(each).as_posix(): path.read_bytes()
                for path in each.rglob("*")
                if path.is_file()
            }
            for each in (assets, Path(folder or assets / "none"))
        )
    altered = {f"assets/{name}" for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
    return store.differ | altered


def compile_settings(model: Any) -> dict[str, Any]:
    """Return what the model was compiled with, as given; its public attributes lack the metrics."""
    return dict(getattr(getattr(model, "_compile_config", None), "config", {}))


def all_layers(model: Any) -> list[Any]:
    """Return the model and the layers in it, however deep, each once."""
    return list(model._flatten_layers())


def functional(model: Any) -> Any:
    """Return the functional model that a built Sequential model wraps, or the model itself."""
    return getattr(model, "_functional", None) or model


# Training


def random_seed() -> int | None:
    """Return the seed of `keras.utils.set_random_seed`, which no public name tells; None without one.

    >>> keras.utils.set_random_seed(3)
    >>> random_seed()
    3
    """
    seed = get_random_seed()
    return None if seed is None else int(seed)


def is_own(thing: Any) -> bool:
    """Tell an object, class or function of Keras from a user's own, whatever its name.

    >>> is_own(keras.losses.MeanSquaredError()), is_own("mse".upper)
    (True, False)
    """
    return str(getattr(thing, "__module__", "")).startswith("keras.")


def to_python(logs: Any) -> dict[str, Any]:
    """Return logs as callbacks get them: sorted by name, flat, single numbers as Python floats.

    >>> to_python({"mae": tf.constant(0.5), "loss": 1})
    {'loss': 1.0, 'mae': 0.5}
    """
    if logs and all(type(value) is float for value in logs.values()):  # many models have many logs
        return dict(sorted(logs.items()))
    return dict(pythonify_logs(logs))


def first_epoch(model: Any) -> int | None:
    """Return the epoch that `BackupAndRestore` lets a model start at, or None."""
    epoch: int | None = model._initial_epoch
    return epoch


def changed_since_compile(model: Any) -> list[str]:
    """Return the names of layers that were added, frozen or unfrozen since the model was compiled."""
    compiled = model._compiled_trainable_state
    return [layer.name for layer in all_layers(model) if compiled.get(layer) is not layer.trainable]


def compilation(model: Any) -> Any:
    """Return what each call of `compile` makes anew: its arguments, in `config`."""
    return model._compile_config


def build_compiled(model: Any, y: Any, y_pred: Any) -> None:
    """Let losses and metrics make their variables, as they do when they see the first batch.

    Args:
        model: A compiled model.
        y: Its targets, as `keras.KerasTensor`.
        y_pred: Its outputs, likewise.
    """
    metrics, loss = model._compile_metrics, model._compile_loss
    if metrics is not None and not metrics.built:
        metrics.build(y, y_pred)
    if loss is not None and not loss.built:
        backend.compute_output_spec(model._compute_loss, None, y, y_pred, training=False)


def build_optimizer(model: Any) -> None:
    """Make the variables of a model's optimizer, with the names that they get in training."""
    optimizer = model.optimizer
    if optimizer is not None and not optimizer.built:
        with backend.name_scope(optimizer.name, caller=optimizer):
            optimizer.build(model.trainable_variables)


def build_symbolically(model: Any, batch: Any) -> None:
    """Make all variables of a model, its losses, metrics and optimizer; nothing is computed.

    Args:
        model: A compiled model.
        batch: x, or `(x, y)`, or `(x, y, sample_weight)`, as `tf.TensorSpec`.
    """
    model._symbolic_build(data_batch=batch)


def output_spec(model: Any, x: Any) -> Any:
    """Return a model's outputs as `keras.KerasTensor`; it is built where it is not, nothing is computed.

    >>> output_spec(keras.Sequential([keras.layers.Dense(3)]), keras.KerasTensor((None, 2))).shape
    (None, 3)
    """
    return backend.compute_output_spec(model, x, training=False)


def graph_outputs(model: Any) -> Any:
    """Return the outputs of a model with a graph, as `keras.KerasTensor`, arranged as a call gives them.

    None for a model without a graph: a subclass, or a Sequential model that is not built.

    >>> inputs = keras.Input((2,))
    >>> graph_outputs(keras.Model(inputs, {"price": keras.layers.Dense(3)(inputs)}))["price"].shape
    (None, 3)
    """
    structure = getattr(model, "_outputs_struct", None)
    outputs = getattr(model, "outputs", None)
    return structure if structure is not None else outputs[0] if outputs else None


def own_loop(model: Any) -> str:
    """Name what a model overrides of all that Keras calls while it trains and compiled epochs go past; or "".

    >>> own_loop(keras.Sequential())
    ''
    """
    names = ("fit", "evaluate", "make_train_function", "make_test_function", "_make_function")
    for name in (*names, "train_on_batch", "test_on_batch"):
        if name in vars(model) or getattr(type(model), name) is not getattr(keras.Model, name):
            return name
    return ""


def loss_tracker(model: Any) -> Any:
    """Return the metric that averages the loss."""
    return model._loss_tracker


def needs_batches(board: keras.callbacks.TensorBoard) -> bool:
    """Say whether a TensorBoard callback looks at batches."""
    return bool(board.update_freq != "epoch" or board._should_trace)


@contextlib.contextmanager
def quick_sparse_products() -> Iterator[None]:
    """Let sparse times dense, in what this thread traces meanwhile, be TensorFlow's own product.

    Keras takes the way of an embedding's look-up, which gives the same numbers several times later. What
    TensorFlow's product does not give as Keras does is left to Keras, and a log record says so.
    """
    with _EXCHANGE:
        if not _quick_threads and (kerass := getattr(backend.numpy, "matmul", None)):
            backend.numpy.matmul = functools.wraps(kerass)(functools.partial(_matmul, kerass))
        _quick_threads.append(threading.get_ident())
    try:
        yield
    finally:
        with _EXCHANGE:
            _quick_threads.remove(threading.get_ident())
            if not _quick_threads and hasattr(backend.numpy, "matmul"):
                backend.numpy.matmul = backend.numpy.matmul.__wrapped__


def _matmul(kerass: Callable[[Any, Any], Any], x1: Any, x2: Any) -> Any:
    if not isinstance(x1, tf.SparseTensor) or threading.get_ident() not in _quick_threads:
        return kerass(x1, x2)
    dense = x2 if isinstance(x2, tf.SparseTensor) else tf.convert_to_tensor(x2)
    ranks, kinds = (x1.shape.rank, dense.shape.rank), (x1.dtype.name, dense.dtype.name)
    same = kinds[1] == "float64" or (kinds[1] == "float32" and kinds[0] != "float64")
    if ranks != (2, 2) or not same or isinstance(x2, tf.SparseTensor):
        LOG.info("a sparse product of %s and %s, ranks %d and %d, is Keras's", *kinds, *ranks)
        return kerass(x1, x2)
    x1 = tf.cast(x1, dense.dtype)
    width = dense.shape[1]
    # On a CPU the product with 32 columns or more takes several times as long as that with fewer.
    if width is None or width < 32 or tf.config.list_logical_devices("GPU"):
        return tf.sparse.sparse_dense_matmul(x1, dense)
    sizes = [min(16, width - start) for start in range(0, width, 16)]
    slices = tf.split(dense, sizes, axis=1)
    return tf.concat([tf.sparse.sparse_dense_matmul(x1, each) for each in slices], axis=1)
