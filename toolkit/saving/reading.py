"""From the bytes of a `.keras` file to a model: all parts are checked, then it is built and compared."""

import contextlib
import functools
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import keras

from toolkit import _keras, _tensorflow
from toolkit._garbage import uncollected
from toolkit.saving.archive import json_object, list_of, members
from toolkit.saving.config import check_config
from toolkit.saving.reasons import reason, refuse_if
from toolkit.saving.weights import Arrays

_SCALED = "/optimizer/inner_optimizer/"  # where the state of an optimizer for mixed_float16 is stored


@functools.cache
def guards_bite() -> None:
    """Raise unless this version of Keras has the guards that `check` and `build` rely on, under these names.

    Names that Keras keeps to itself may go or change their meaning with a release, and a guard with them.
    """
    code = {"class_name": "__lambda__", "config": {"value": ["", None, None]}}
    refused, modes, declared = "", [], list[Any]()
    for mode in (True, False):
        with _keras.safe_mode_scope(mode):
            modes.append(_keras.safe_mode())
            try:
                keras.saving.deserialize_keras_object(code, safe_mode=not mode)
            except Exception as error:
                refused += f"{mode}: {'lambda' in str(error)}. "
    with _keras.declared_into(declared):
        keras.Variable("zeros", shape=(2, 3), dtype="float32", name="declared")
    shapes = [tuple(variable.shape) for variable in declared]
    if (refused, modes, shapes) != ("True: True. False: False. ", [True, False], [(2, 3)]):
        raise RuntimeError(
            f"Keras {keras.__version__} does not keep code out of files, or does not tell which weights are "
            "declared, as the releases do that this toolkit was tested with. Install one of those"
        )


def snapshot(path: Path) -> bytes:
    """Read a file: what is checked is what is loaded, whatever happens to `path` meanwhile."""
    with path.open("rb") as file:
        list_of(file)  # gigabytes of something else are not even read
        file.seek(0)
        return file.read()


@uncollected()
@_tensorflow.random_state_kept()  # Keras draws seeds: to load must change no later number
def build(file: IO[bytes], trusted: bool, to_train: bool = True) -> Any:
    """Check what a file holds, build the model, read its numbers, and hold each of them to what is stored.

    Args:
        file: A `.keras` file.
        trusted: Whether it may hold code.
        to_train: Whether an optimizer gets its state where that is not stored, which takes memory.

    Raises:
        Exception: Of any kind, as of the libraries for zip, HDF5 and models, where it is refused.
    """
    places, parts = members(file), dict[str, bytes]()
    for name, (start, size) in places.items():
        if name != "model.weights.h5":
            file.seek(start)
            parts[name] = file.read(size)
    arrays = Arrays(file, *places["model.weights.h5"])
    config = check(parts, trusted)
    with tempfile.TemporaryDirectory(prefix="toolkit-load-") as folder:
        for name in parts.keys() - {"metadata.json", "config.json"}:
            asset = Path(folder, name)
            asset.parent.mkdir(parents=True, exist_ok=True)
            asset.write_bytes(parts[name])
        return _build(config, arrays, Path(folder, "assets"), trusted, to_train)


def check(parts: dict[str, bytes], trusted: bool) -> dict[str, Any]:
    """Raise unless the config may be built here; return it."""
    metadata = json_object("metadata.json", parts["metadata.json"])
    refuse_if(metadata.keys() - {"keras_version", "date_saved"}, "metadata.json says more than Keras writes")
    version = metadata.get("keras_version")
    numbers = re.fullmatch(
        r"(\d{1,4})\.(\d{1,4})\.[\w.+-]{1,40}", version if isinstance(version, str) else ""
    )
    if not numbers:
        raise ValueError("metadata.json names no version of Keras")
    date = metadata.get("date_saved", "")
    refuse_if(not isinstance(date, str) or len(date) > 40, "metadata.json names no date")
    newer = tuple(map(int, numbers.groups())) > tuple(map(int, keras.__version__.split(".")[:2]))
    refuse_if(newer, f"it was written by Keras {version}, newer than the {keras.__version__} here")
    config = json_object("config.json", parts["config.json"])
    if not trusted:
        refuse_if(
            _keras.safe_mode() is False,
            "keras.config.enable_unsafe_deserialization() was called in this process, so Keras would run "
            "code from files. Start another process, or say trusted=True",
        )
        check_config(config)
    return config


def _build(config: dict[str, Any], arrays: Arrays, assets: Path, trusted: bool, to_train: bool) -> Any:
    compiled, loaded, state_fits = config.pop("compile_config", None), set[int](), True
    with warnings.catch_warnings(), _keras.safe_mode_scope(not trusted):
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")  # seen to below
        with _declared():  # weights that a file does not hold take no memory
            try:
                with _keras.sharing_scope():
                    model = keras.saving.deserialize_keras_object(config)
            except Exception as error:
                raise ValueError(f"its config does not build: {reason(error)}") from error
            refuse_if(not isinstance(model, keras.Model), "config.json describes no model")
            _keras.load_state(model, arrays, assets, loaded)
        if compiled:
            with _declared(to_train):
                state_fits = _compile(model, compiled, arrays)
                _keras.load_state(model, arrays, assets, loaded)
        differ = _keras.state_differences(model, arrays, assets)
    if not state_fits:
        differ = {name for name in differ if not name.startswith("/optimizer/")}
    shown = ", ".join(sorted(differ)[:5])
    refuse_if(differ, f"what the file holds and what the model that it builds would save differ: {shown}")
    return model


@contextlib.contextmanager
def _declared(initialized: bool = True) -> Iterator[None]:
    """Let variables wait for the value that is loaded; the others are initialized at the end, or never."""
    waiting: list[Any] = []
    with _keras.declared_into(waiting):
        yield
    for variable in waiting if initialized else ():
        _keras.initialize(variable)


def _compile(model: Any, compiled: dict[str, Any], arrays: Arrays) -> bool:
    """Compile a model as it was, and tell whether the state of the optimizer that is stored is its own."""
    model.compile_from_config(compiled)
    state = [name for name in arrays if name.startswith("/optimizer/")]
    scaled = any(name.startswith(_SCALED) for name in state)
    trained = len(state) > 2  # else Keras stored its step and learning rate alone
    optimizer = getattr(model, "optimizer", None)  # which a class that has several need not have
    if trained and scaled != isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        # Keras wraps an optimizer by the policy of the model, which it does not save.
        model.dtype_policy = "mixed_float16" if scaled else "float32"
        model.compile_from_config(compiled)
        optimizer = model.optimizer
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    own = [name for name in state if name.startswith(f"{_SCALED if scaled else '/optimizer/'}vars/")]
    if len(own) == len(getattr(inner, "variables", ())):
        return True
    if trained:  # a layer was frozen, unfrozen or quantized after training, and Keras drops the state
        warnings.warn(
            "the state of the optimizer is that of other weights: it starts anew. Compile a "
            "model again after layers were frozen, unfrozen or quantized",
            stacklevel=5,
        )
    return False
