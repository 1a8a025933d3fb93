"""A data set of arrays as record files: a builder for TensorFlow Datasets (TFDS), of what TFDS lacks.

TFDS asks a builder three questions: what is a row, which splits are there, and which rows do they hold. It
writes the answers to files once, and streams them from there ever after. No network is asked.
"""

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds  # type: ignore[import-untyped]


class Records(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc, call-arg]
    """Writes training and test rows to record files, and streams them.

    Args:
        data: What unpacks as `(x_train, y_train), (x_test, y_test)`: arrays with rows first; texts are an
            object array of integer arrays, of any lengths.
        folder: Where the files are, or will be: one folder for each data set.

    >>> import tempfile
    >>> import numpy as np
    >>> x, y = np.arange(6.0).reshape(3, 2), np.array([0, 1, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     records = Records([(x, y), (x[:1], y[:1])], folder)
    ...     records.write()
    ...     records.as_dataset("train[50%:]", as_supervised=True).cardinality().numpy()
    np.int64(1)
    """

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # no files of TFDS's lie beside this module; or TFDS would look for them

    def __init__(self, data: Iterable[tuple[Any, Any]], folder: str | Path, **kwargs: Any) -> None:
        self.data = list(data)
        super().__init__(data_dir=folder, **kwargs)

    def write(self) -> None:
        """Write the files, unless they are there."""
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):  # it would tell of a download, and there is none
            self.download_and_prepare()

    def _info(self) -> Any:
        x, y = self.data[0]
        row = tfds.features.Tensor(shape=x.shape[1:] or (None,), dtype=x[0].dtype)
        features = tfds.features.FeaturesDict({"x": row, "y": y.dtype})
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("x", "y"))

    def _split_generators(self, dl_manager: Any) -> Mapping[str, Any]:
        train, test = self.data
        return {"train": self._generate_examples(*train), "test": self._generate_examples(*test)}

    def _generate_examples(self, x: Any, y: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate({"x": row, "y": label} for row, label in zip(x, y, strict=True))
