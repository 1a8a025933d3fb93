"""Save a model in Keras's native format, `.keras`, and load it back: the file appears whole or not at all."""

import os
import tempfile
from pathlib import Path
from typing import Any


def save(model: Any, path: str | Path) -> Path:
    """Save architecture, weights, compile settings and optimizer state to one `.keras` file.

    Args:
        model: A built Keras model.
        path: File name ending in `.keras`. An earlier file there stays until the new one is complete.

    Returns:
        The path.

    Raises:
        ValueError: Another ending, or a model without weights yet (Keras would save it with a warning only).

    >>> import keras
    >>> model = keras.Sequential([keras.Input(shape=(2,)), keras.layers.Dense(1)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load(save(model, Path(folder) / "model.keras")).count_params()
    3
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"`path` must end in .keras, Keras's native format. Received: {str(path)!r}")
    if not model.built:
        raise ValueError(
            f"`model` must be built before it is saved: call it on data once. Received: {model!r}"
        )
    # A folder of its own beside the target: the same file system, and Keras insists on the name's ending.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        whole = Path(folder) / path.name
        model.save(whole)
        os.replace(whole, path)  # noqa: PTH105 (named for what it does: replace atomically)
    return path


def load(path: str | Path) -> Any:
    """Load a model that `save` or `model.save` wrote, ready to predict or to train on.

    Args:
        path: A `.keras` file. The classes of a subclassed model must be imported and registered with
            `keras.saving.register_keras_serializable`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is in another format, or Keras finds it unsafe or unknown.

    >>> load("model.h5")
    Traceback (most recent call last):
    FileNotFoundError: `path` must be a .keras file. Received: 'model.h5', which is no file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`path` must be a .keras file. Received: {str(path)!r}, which is no file.")
    if path.suffix != ".keras":
        raise ValueError(
            f"`path` must end in .keras. Received: {str(path)!r}. Load an .h5 file or a SavedModel with the "
            "Keras version that wrote it, then save it as .keras."
        )
    import keras

    return keras.saving.load_model(path)
