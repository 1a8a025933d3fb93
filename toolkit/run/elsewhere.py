"""`Run.predict_elsewhere`: load models in a new process, which knows only the files and the recipe."""

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit import caching


def predict(
    recipe: str, paths: Sequence[Path], x: npt.ArrayLike, train: tuple[Any, Any] | None = None
) -> list[npt.NDArray[Any]]:
    """Predict in a new process; see `Run.predict_elsewhere`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, array in zip(("x", "x_train", "y_train"), (x, *(train or ())), strict=False):
            np.save(Path(folder, f"{name}.npy"), np.asarray(array))
        command = [sys.executable, "-m", "toolkit.run.elsewhere", recipe, folder, *map(str, paths)]
        flags = caching.without_cache(os.environ.get("TF_XLA_FLAGS", ""))
        subprocess.run(command, check=True, env=os.environ | {"TF_XLA_FLAGS": flags})
        count = len(paths) * (1 if train is None else 2)
        return [np.load(Path(folder, f"{number}.npy")) for number in range(count)]


def _main(recipe: str, folder: str, *paths: str) -> None:
    import keras
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    importlib.import_module(recipe)  # registers its classes
    given = {path.stem: np.load(path) for path in Path(folder).glob("*.npy")}
    models = [keras.saving.load_model(path) for path in paths]
    predictions = [model.predict(given["x"], verbose=0) for model in models]
    if "x_train" in given:
        for model in models:
            model.fit(given["x_train"], given["y_train"], shuffle=False, verbose=0)
            predictions.append(model.predict(given["x"], verbose=0))
    for number, prediction in enumerate(predictions):
        np.save(Path(folder, f"{number}.npy"), prediction)


if __name__ == "__main__":
    from toolkit import quiet

    quiet.start()
    _main(*sys.argv[1:])
