"""Each private name of Keras and TensorFlow that the toolkit relies on, in a function that says its meaning.

`tests/test_keras_private.py` holds every function to it, so that a new release of Keras that renames one of
them, or gives it another meaning, is noticed there and not by a user.
"""

import contextlib
import functools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.saving import saving_lib, serialization_lib

_DECLARING = threading.RLock()

# Saving and loading


def safe_mode() -> bool | None:
    """Tell whether Keras refuses code in files: True or False where a scope or a user says so, else None."""
    mode: bool | None = global_state.get_global_attribute("safe_mode_saving")
    return mode


def set_safe_mode(on: bool | None) -> None:
    """Set what `safe_mode` gives, for the whole process: None is Keras's state at its start."""
    global_state.set_global_attribute("safe_mode_saving", on)


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

    def declare(variable: Any, initializer: Any) -> None:
        if threading.get_ident() != thread:
            fill(variable, initializer)
        else:
            variable._value, variable._initializer = None, initializer
            variables.append(variable)

    def fill_and_assign(variable: Any, value: Any) -> None:
        if variable._value is None:
            fill(variable, variable._initializer)
        assign(variable, value)

    with _DECLARING:
        cls._initialize_with_initializer, cls._direct_assign = declare, fill_and_assign
        try:
            yield
        finally:
            cls._initialize_with_initializer, cls._direct_assign = fill, assign


def initialize(variable: Any, zeros: bool) -> None:
    """Give a variable that waits its value: what its initializer makes, or zeros, which is sooner."""
    if variable._value is None:
        with tf.init_scope():
            variable._initialize_with_initializer(tf.zeros if zeros else variable._initializer)
        variable._initializer = None


def load_state(model: Any, weights: Path, assets: Path) -> None:
    """Read weights, optimizer state and, where the folder is there, assets into a model that is built."""
    store = saving_lib.H5IOStore(weights, mode="r")
    files = saving_lib.DiskIOStore(str(assets), mode="r") if assets.is_dir() else None
    failed: set[int] = set()
    reasons: dict[int, Any] = {}
    visits = {"visited_saveables": set[int](), "failed_saveables": failed, "error_msgs": reasons}
    try:
        with quick_walk():
            saving_lib._load_state(model, weights_store=store, assets_store=files, inner_path="", **visits)
    finally:
        store.close()
    if failed:
        saving_lib._raise_loading_failure(reasons)


def same_bits(one: Any, other: Any) -> bool:
    """Tell whether two arrays of one shape and size of items are equal, NaN for NaN and without a copy."""
    views = [np.ascontiguousarray(each).reshape(-1).view(np.uint8).data for each in (one, other)]
    return bool(views[0] == views[1])


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


class _Comparison(saving_lib.H5IOStore):  # type: ignore[misc]
    """Takes what a model writes when it is saved, and tells what a file holds instead, or not."""

    def __init__(self, weights: Path) -> None:
        super().__init__(weights, mode="r")
        self.group, self.written, self.differ = "", set[str](), set[str]()

    def make(self, path: str, metadata: Any = None) -> "_Comparison":
        self.group = f"/{path}/vars" if path else "/vars"
        return self

    def __setitem__(self, key: str, value: Any) -> None:
        name, value = f"{self.group}/{key}", keras.ops.convert_to_numpy(value)
        self.written.add(name)
        stored = self.h5_file.get(name)
        if (
            stored is None
            or (stored.shape, stored.dtype.itemsize) != (value.shape, value.dtype.itemsize)
            or (stored.dtype != value.dtype and stored.attrs.get("dtype") != value.dtype.name)
            or not same_bits(stored[...], value)
        ):
            self.differ.add(name)


def state_differences(model: Any, names: set[str], weights: Path, assets: Path) -> set[str]:
    """Name the arrays and assets that a model would save otherwise than they are stored, bit by bit.

    Args:
        model: The model.
        names: The arrays that are stored, such as "/layers/dense/vars/0".
        weights: The HDF5 file.
        assets: The folder of assets, which need not be there.
    """
    store, files = _Comparison(weights), saving_lib.DiskIOStore(assets.name, mode="w")
    # Layers with factors of LoRA, which are zeros after a load, would write what they quantize anew.
    merging = [layer for layer in all_layers(model) if getattr(layer, "lora_enabled", False)]
    for layer in merging:
        layer.lora_enabled = False
    try:
        with quick_walk():
            saving_lib._save_state(model, store, files, inner_path="", visited_saveables=set())
        contents = [
            {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in folder.rglob("*")
                if path.is_file()
            }
            for folder in (assets, Path(files.working_dir))
        ]
    finally:
        for layer in merging:
            layer.lora_enabled = True
        store.close()
        files.close()
    one, other = contents
    altered = {f"assets/{name}" for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
    return store.differ | (names - store.written) | altered


def compile_settings(model: Any) -> dict[str, Any]:
    """Return what the model was compiled with, as given; its public attributes lack the metrics."""
    settings: dict[str, Any] = getattr(getattr(model, "_compile_config", None), "config", {})
    return settings


def all_layers(model: Any) -> list[Any]:
    """Return the model and the layers in it, however deep, each once."""
    return list(model._flatten_layers())


def functional(model: Any) -> Any:
    """Return the functional model that a built Sequential model wraps, or the model itself."""
    return getattr(model, "_functional", None) or model
