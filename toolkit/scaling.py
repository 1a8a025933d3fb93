"""Scale the columns of x by statistics of the training rows, and of those alone.

Unlike scikit-learn's scalers these become a Keras layer, which is saved with the model; and unlike a bare
`(x - mean) / std` they survive a constant column, whose NaN TensorFlow's CPU kernels can hide from the loss.

In a scikit-learn `Pipeline` that is cross-validated, scaling must be fitted anew on the rows of each fold:
scikit-learn's own `StandardScaler` and `MinMaxScaler` do that. To scale there as a model of yours does, by
statistics that are settled already, hand the fitted scaler to a `FunctionTransformer`:

>>> from sklearn.pipeline import make_pipeline
>>> from sklearn.linear_model import LinearRegression
>>> from sklearn.preprocessing import FunctionTransformer
>>> x, y = [[1.0], [3.0]], [10.0, 30.0]
>>> scale = FunctionTransformer(Standardizer.fit(x))
>>> make_pipeline(scale, LinearRegression()).fit(x, y).predict([[2.0]]).round(6)
array([20.])
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from toolkit._checks import refuse_non_finite


@dataclass(frozen=True, eq=False)
class _ColumnScaler:
    """Shared part: `(x - shift) / scale`, column by column."""

    shift: npt.NDArray[np.float64]  # shape (columns,)
    scale: npt.NDArray[np.float64]  # shape (columns,), never 0
    columns: tuple[Any, ...] | None = None
    _shift_of: ClassVar[Callable[..., Any]]
    _scale_of: ClassVar[Callable[..., Any]]

    @classmethod
    def fit(cls, x_train: Any) -> Self:
        """Take the statistics of the training rows, in float64.

        Args:
            x_train: Numbers, shape `(n, columns)` (or `(n, ..., columns)`), all of them finite: lists, an
                array, a pandas DataFrame, a tensor that NumPy can read.

        Raises:
            ValueError: No row, no number, or NaN or infinity (the message names row and column).
        """
        x = _array("x_train", x_train)
        if x.ndim < 2 or x.size == 0 or x.dtype.kind not in "biuf":
            raise ValueError(
                "`x_train` must be an array of numbers, its rows first and its columns last. "
                f"Received: shape {x.shape}, dtype {x.dtype}"
            )
        refuse_non_finite("x_train", x)
        rows = x.reshape(-1, x.shape[-1])
        # The deviation of a constant column comes out as rounding dust, not 0: look at its range instead.
        precision = np.finfo(rows.dtype if rows.dtype.kind == "f" else np.float64).eps
        dust = 4 * precision * np.abs(rows).max(axis=0)
        constant = np.ptp(rows, axis=0) <= dust
        rows = rows.astype(np.float64)
        scale = np.where(constant, 1.0, cls._scale_of(rows, axis=0))
        return cls(cls._shift_of(rows, axis=0), scale, _columns(x_train))

    def __call__(self, x: Any) -> Any:
        """Scale x, and return it as what it was.

        Args:
            x: Numbers, shape `(..., columns)`: lists or an array (an array comes back), a pandas DataFrame (a
                DataFrame with its index and columns), a tensor of Keras's backend, also in a `tf.function`
                or in `tf.data`, or the symbolic `keras.Input` of a functional model.

        Returns:
            Numbers of the same shape: float64 where x is float64, else float32.

        Raises:
            TypeError: x is of another framework (a torch tensor, say), which would come back as TensorFlow's.
            ValueError: Another number of columns, other names of columns, or an array with NaN or infinity.
        """
        return self._affine(x, lambda x, shift, scale: (x - shift) / scale)

    def inverse(self, x: Any) -> Any:
        """Undo the scaling of x, which may be all that scaling takes."""
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

    def _affine(self, x: Any, formula: Callable[..., Any]) -> Any:
        if not hasattr(x, "shape"):
            x = np.asarray(x)
        if len(x.shape) < 1 or x.shape[-1] != len(self.shift):
            raise ValueError(f"`x` must have {len(self.shift)} columns. Received: shape {tuple(x.shape)}")
        if isinstance(x, np.ndarray):
            return self._affine_array(x, formula)
        if hasattr(x, "iloc"):  # pandas, without importing it: a DataFrame, or a Series that is one row of it
            if self.columns is not None and _columns(x) != self.columns:
                raise ValueError(f"`x` must have the columns {self.columns}. Received: {_columns(x)}")
            labels = {"columns": x.columns} if hasattr(x, "columns") else {"name": x.name}
            return type(x)(self._affine_array(_array("x", x), formula), index=x.index, **labels)
        return self._affine_tensor(x, formula)

    def _affine_array(self, x: npt.NDArray[Any], formula: Callable[..., Any]) -> npt.NDArray[Any]:
        if x.dtype.kind not in "biuf":
            raise ValueError(f"`x` must be an array of numbers. Received: dtype {x.dtype}")
        refuse_non_finite("x", x)
        dtype = x.dtype if x.dtype == np.float64 else np.float32
        scaled: npt.NDArray[Any] = formula(x.astype(np.float64), self.shift, self.scale).astype(dtype)
        return scaled

    def _affine_tensor(self, x: Any, formula: Callable[..., Any]) -> Any:
        import keras

        if not (isinstance(x, keras.KerasTensor) or keras.ops.is_tensor(x)):
            raise TypeError(
                f"`x` must be an array, a DataFrame or a {keras.backend.backend()} tensor. "
                f"Received: {type(x).__module__}.{type(x).__qualname__}; pass numpy.asarray(x)"
            )
        dtype = "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32"
        shift, scale = (keras.ops.convert_to_tensor(each, dtype) for each in (self.shift, self.scale))
        return formula(keras.ops.cast(x, dtype), shift, scale)


def _columns(x: Any) -> tuple[Any, ...] | None:
    """Return the names of the columns of a DataFrame, or of the Series that is one row of it."""
    if not hasattr(x, "iloc"):
        return None
    return tuple(x.columns if hasattr(x, "columns") else x.index)


def _array(name: str, x: Any) -> npt.NDArray[Any]:
    """Return x as an array; a DataFrame of several kinds of numbers as float64."""
    array = np.asarray(x)
    if array.dtype != object or not (hasattr(x, "iloc") and hasattr(x, "columns")):
        return array
    for column, dtype in x.dtypes.items():
        if dtype.kind not in "biuf":
            raise ValueError(f"`{name}` must hold numbers. Received: dtype {dtype} in column {column!r}")
    numbers: npt.NDArray[Any] = x.to_numpy(dtype=np.float64, na_value=np.nan)
    return numbers


class Standardizer(_ColumnScaler):
    """Subtract the mean of each column and divide by its standard deviation; a constant column by 1.

    Attributes:
        shift: Means, float64, shape `(columns,)`.
        scale: Standard deviations (of the population, as the books and Keras take them), or 1.
        columns: Names of the columns, where `fit` was given a DataFrame; else None.

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
        columns: Names of the columns, where `fit` was given a DataFrame; else None.

    Source: Géron, Hands-On Machine Learning, chapter 2, "Feature Scaling".

    >>> normalizer = MinMaxNormalizer.fit([[1.0, 7.0], [3.0, 7.0]])
    >>> normalizer.inverse(normalizer(np.array([[2.0, 7.0]])))
    array([[2., 7.]])
    """

    _shift_of, _scale_of = staticmethod(np.min), staticmethod(np.ptp)
