"""Scale the columns of x by statistics of the training rows, and of those alone.

Unlike scikit-learn's scalers these become a Keras layer, which is saved with the model; and unlike a bare
`(x - mean) / std` they survive a constant column, whose NaN TensorFlow's CPU kernels can hide from the loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class _ColumnScaler:
    """Shared part: `(x - shift) / scale`, column by column."""

    shift: npt.NDArray[np.float64]  # shape (columns,)
    scale: npt.NDArray[np.float64]  # shape (columns,), never 0
    _shift_of: ClassVar[Callable[..., Any]]
    _scale_of: ClassVar[Callable[..., Any]]

    @classmethod
    def fit(cls, x_train: npt.ArrayLike) -> Self:
        """Take the statistics of the training rows, in float64.

        Args:
            x_train: Numbers, shape `(n, columns)` (or `(n, ..., columns)`), all of them finite.

        Raises:
            ValueError: No row, no number, or NaN or infinity (the message names row and column).
        """
        x = np.asarray(x_train)
        if x.ndim < 2 or x.size == 0 or x.dtype.kind not in "biuf":
            raise ValueError(
                "`x_train` must be an array of numbers, its rows first and its columns last. "
                f"Received: shape {x.shape}, dtype {x.dtype}"
            )
        rows = x.reshape(-1, x.shape[-1])
        _refuse_non_finite("x_train", rows)
        # The deviation of a constant column comes out as rounding dust, not 0: look at its range instead.
        precision = np.finfo(rows.dtype if rows.dtype.kind == "f" else np.float64).eps
        dust = 4 * precision * np.abs(rows).max(axis=0)
        constant = np.ptp(rows, axis=0) <= dust
        rows = rows.astype(np.float64)
        return cls(cls._shift_of(rows, axis=0), np.where(constant, 1.0, cls._scale_of(rows, axis=0)))

    def __call__(self, x: Any) -> Any:
        """Scale x, array or tensor: float64 stays float64, all else becomes float32."""
        return self._affine(x, lambda x, shift, scale: (x - shift) / scale)

    def inverse(self, x: Any) -> Any:
        """Undo the scaling of x, array or tensor."""
        return self._affine(x, lambda x, shift, scale: x * scale + shift)

    def layer(self) -> Any:
        """Return the same scaling as a `keras.layers.Normalization`, saved and loaded with its model.

        Raises:
            ValueError: A column varies so little that the layer, which works in float32, would not see it.
        """
        import keras

        if self.scale.min() < 1e-6:
            column = int(self.scale.argmin())
            raise ValueError(
                f"`x_train` must vary by more than 1e-6 for a layer. Received: column {column} varies by "
                f"{self.scale[column]:.3g}; give it in a smaller unit"
            )
        return keras.layers.Normalization(axis=-1, mean=self.shift, variance=np.square(self.scale))

    def _affine(self, x: Any, formula: Any) -> Any:
        if not hasattr(x, "shape"):
            x = np.asarray(x)
        if len(x.shape) < 1 or x.shape[-1] != len(self.shift):
            raise ValueError(f"`x` must have {len(self.shift)} columns. Received: shape {tuple(x.shape)}")
        if isinstance(x, np.ndarray):
            if x.dtype.kind not in "biuf":
                raise ValueError(f"`x` must be an array of numbers. Received: dtype {x.dtype}")
            _refuse_non_finite("x", x.reshape(-1, x.shape[-1]))
            dtype = x.dtype if x.dtype == np.float64 else np.dtype(np.float32)
            return formula(x.astype(np.float64), self.shift, self.scale).astype(dtype)
        import tensorflow as tf

        x = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
        return formula(x, tf.constant(self.shift, x.dtype), tf.constant(self.scale, x.dtype))


class Standardizer(_ColumnScaler):
    """Subtract the mean of each column and divide by its standard deviation; a constant column by 1.

    Attributes:
        shift: Means, float64, shape `(columns,)`.
        scale: Standard deviations (of the population, as the books and Keras take them), or 1.

    Source: Chollet, Deep Learning with Python, section 3.6.

    >>> standardizer = Standardizer.fit([[1.0, 7.0], [3.0, 7.0]])
    >>> standardizer(np.array([[1.0, 7.0], [5.0, 8.0]]))
    array([[-1.,  0.],
           [ 3.,  1.]])
    """

    _shift_of, _scale_of = staticmethod(np.mean), staticmethod(np.std)


class MinMaxNormalizer(_ColumnScaler):
    """Map the smallest value of each column to 0 and the largest to 1; a constant column to 0.

    One outlier squeezes all other rows together: prefer `Standardizer` unless the bounds are real ones, as
    for the grey values of an image. New rows may fall outside 0 to 1.

    Attributes:
        shift: Minima, float64, shape `(columns,)`.
        scale: Maximum minus minimum, or 1.

    Source: Géron, Hands-On Machine Learning, chapter 2, "Feature Scaling".

    >>> normalizer = MinMaxNormalizer.fit([[1.0, 7.0], [3.0, 7.0]])
    >>> normalizer.inverse(normalizer(np.array([[2.0, 7.0]])))
    array([[2., 7.]])
    """

    _shift_of, _scale_of = staticmethod(np.min), staticmethod(np.ptp)


def _refuse_non_finite(name: str, rows: npt.NDArray[Any]) -> None:
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise ValueError(
            f"`{name}` must be finite. Received: {rows[row, column]} in row {row}, column {column}."
        )
