"""Each private name of Keras and TensorFlow that the toolkit relies on, in a function that says its meaning.

`tests/test_keras_private.py` holds every function to it, so that a new release of Keras that renames one of
them, or gives it another meaning, is noticed there and not by a user.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.saving import serialization_lib

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
    """Let each variable without a value be appended to a list of one's own, and be given no value.

    An exception that `variables.append` raises ends what is being built.
    """
    waiting = "uninitialized_variables"
    before = global_state.get_global_attribute(waiting) or []
    global_state.set_global_attribute(waiting, variables)
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(waiting, before)


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
