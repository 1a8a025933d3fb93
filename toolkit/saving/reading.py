"""Check all that a file holds, then build the model."""

import functools
import random
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras

from toolkit import _keras
from toolkit.saving.archive import json_object, unpack
from toolkit.saving.config import check_config, declare
from toolkit.saving.reasons import refuse_if
from toolkit.saving.weights import Stored, check_weights


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


def read(path: Path, sha256: str | None, trusted: bool) -> tuple[Any, str]:
    """Load a file as `load` does, and return the model and the sha256 of what was loaded."""
    random_state = random.getstate()  # Keras draws seeds from it: to load must change no later number
    # What is checked is what is loaded, whatever happens to `path` meanwhile.
    with tempfile.TemporaryDirectory(prefix="toolkit-load-") as name, path.open("rb") as file:
        try:
            folder = Path(name)
            digest = unpack(file, folder)
            if sha256 is not None and digest != sha256.lower():
                raise ValueError(f"it is another file: its sha256 is {digest}, not {sha256.lower()}")
            return build(folder, check(folder, trusted), trusted), digest
        finally:
            random.setstate(random_state)


def check(folder: Path, trusted: bool) -> Stored:
    """Raise unless all that the members of a file say can be built; return which weights are stored."""
    metadata = json_object(folder / "metadata.json")
    refuse_if(metadata.keys() - {"keras_version", "date_saved"}, "metadata.json says more than Keras writes")
    version = metadata.get("keras_version")
    if not isinstance(version, str) or not (parts := re.match(r"(\d{1,4})\.(\d{1,4})\.", version)):
        raise ValueError("metadata.json names no version of Keras")
    newer = tuple(map(int, parts.groups())) > tuple(map(int, keras.__version__.split(".")[:2]))
    refuse_if(newer, f"it was written by Keras {version}, newer than the {keras.__version__} here")
    stored = check_weights(folder / "model.weights.h5")
    if not trusted:
        refuse_if(
            _keras.safe_mode() is False,
            "keras.config.enable_unsafe_deserialization() was called in this process, so Keras would run "
            "code from files. Start another process, or say trusted=True",
        )
        check_config(json_object(folder / "config.json"))
    return stored


def build(folder: Path, stored: Stored, trusted: bool) -> Any:
    """Build the model, read its numbers, and hold each of them to what is stored."""
    weights, assets = folder / "model.weights.h5", folder / "assets"
    config = json_object(folder / "config.json")
    compiled = config.pop("compile_config", None)
    names = set(stored)
    state = {name for name in names if name.startswith("/optimizer/")}
    with warnings.catch_warnings(), _keras.safe_mode_scope(not trusted):
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")  # seen to below
        model, waiting = declare(config, stored)
        for variable, read in waiting:
            _keras.initialize(variable, zeros=read)
        if compiled:
            model.compile_from_config(compiled)
            optimizer = getattr(model, "optimizer", None)
            scaled = any(name.startswith("/optimizer/inner_optimizer/") for name in state)
            trained = len(state) > 2  # else Keras stored its step and learning rate alone
            if trained and scaled != isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                # Keras wraps an optimizer by the policy of the model, which it does not save.
                model.dtype_policy = "mixed_float16" if scaled else "float32"
                model.compile_from_config(compiled)
            if len(state) != len(getattr(optimizer, "variables", ())):
                names -= state
                if trained:
                    # A layer was frozen, unfrozen or quantized after training, and Keras drops the state.
                    warnings.warn(
                        "the state of the optimizer is that of other weights: it starts anew. Compile a "
                        "model again after layers were frozen, unfrozen or quantized",
                        stacklevel=4,
                    )
        _keras.load_state(model, weights, assets)
        differ = _keras.state_differences(model, names, weights, assets)
    if names.isdisjoint(state):
        differ = {name for name in differ if not name.startswith("/optimizer/")}
    shown = ", ".join(sorted(differ)[:5])
    refuse_if(differ, f"what the file holds and what the model that it builds would save differ: {shown}")
    return model
