"""Check all that a file holds, then build the model."""

import functools
import gc
import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import h5py
import keras

from toolkit import _keras
from toolkit.saving.archive import check_zip, json_object
from toolkit.saving.config import check_config, check_declared
from toolkit.saving.reasons import refuse_if
from toolkit.saving.weights import check_arrived, check_weights, datasets

_WORDS = 250_000  # lines of all its assets; Keras stores some words twice
_LINE = re.compile(rb"[\n\r\x0b\x0c\x1c-\x1e\x85]|\xe2\x80[\xa8\xa9]")  # where Python ends a line


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


def check(file: IO[bytes], folder: Path, trusted: bool) -> None:
    """Raise unless the file is whole, and all that it says can be built; take its members out to `folder`."""
    size = file.seek(0, os.SEEK_END)
    check_zip(file, size)
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)  # which checks their CRCs, too
    version = json_object(folder / "metadata.json").get("keras_version")
    if not isinstance(version, str) or not (parts := re.match(r"(\d{1,4})\.(\d{1,4})\.", version)):
        raise ValueError("metadata.json names no version of Keras")
    newer = tuple(map(int, parts.groups())) > tuple(map(int, keras.__version__.split(".")[:2]))
    refuse_if(newer, f"it was written by Keras {version}, newer than the {keras.__version__} here")
    stored = check_weights(folder / "model.weights.h5", size)
    if trusted:
        return
    assets = (path for path in (folder / "assets").rglob("*") if path.is_file())
    lines = sum(1 for path in assets for _ in _LINE.finditer(path.read_bytes()))
    refuse_if(lines > _WORDS, f"its vocabularies have {lines:,} words; {_WORDS:,} are taken unless trusted")
    refuse_if(
        _keras.safe_mode() is False,
        "keras.config.enable_unsafe_deserialization() was called in this process, so Keras would run code "
        "from files. Start another process, or say trusted=True",
    )
    config = json_object(folder / "config.json")
    check_config(config, size, stored)
    check_declared(config, stored)
    if (folder / "config.json").stat().st_size > 100_000:
        gc.collect()  # a large model, before it is built again


def build(folder: Path, trusted: bool) -> Any:
    """Load the model and hold each of its numbers to what is stored."""
    weights = folder / "model.weights.h5"
    compiled = json_object(folder / "config.json").get("compile_config")
    with h5py.File(weights) as file:
        state = [name for name, _ in datasets(file) if name.startswith("/optimizer/")]
    unused = len(state) <= 2  # of an optimizer that has not trained, Keras stores its step and learning rate
    with warnings.catch_warnings(), _keras.safe_mode_scope(not trusted):
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")  # seen to below
        # The optimizer comes last: it takes twice the memory of the weights, which were read by then.
        model = keras.saving.load_model(folder, compile=False, safe_mode=not trusted)
        if unused or not compiled:
            check_arrived(model, weights, ("/optimizer/",) if compiled else ())
        if compiled:
            model.compile_from_config(compiled)
            optimizer = getattr(model, "optimizer", None)
            scaled = any(name.startswith("/optimizer/inner_optimizer/") for name in state)
            if not unused and scaled != isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                # Keras wraps an optimizer by the policy of the model, which it does not save.
                model.dtype_policy = "mixed_float16" if scaled else "float32"
                model.compile_from_config(compiled)
            if not unused or len(state) == len(getattr(optimizer, "variables", ())):
                model.load_weights(weights)
                check_arrived(model, weights, ())
    return model
