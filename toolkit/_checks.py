"""Refuse an array with a wrong value, by an error that names the first row and column."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

_BLOCK = 4_000_000  # numbers looked at in one go: a mask of a whole array could fill the memory


def refuse_non_finite(name: str, x: Any) -> None:
    """Raise a ValueError that names the first NaN or infinity of an array or SciPy CSR matrix.

    >>> refuse_non_finite("x", np.array([[1.0, 2.0], [3.0, np.nan]]))
    Traceback (most recent call last):
    ValueError: `x` must be finite. Received: nan in row 1, column 1
    """
    numbers = x.data if scipy.sparse.issparse(x) else x
    if numbers.dtype.kind not in "fc" or not numbers.size:
        return
    rows = max(1, _BLOCK * len(numbers) // numbers.size)
    for start in range(0, len(numbers), rows):
        finite = np.isfinite(numbers[start : start + rows])
        if not finite.all():
            place = np.argwhere(~finite)[0] + [start, *[0] * (numbers.ndim - 1)]
            received = numbers[tuple(place)]
            if scipy.sparse.issparse(x):
                place = [np.searchsorted(x.indptr, place[0], side="right") - 1, x.indices[place[0]]]
            raise ValueError(f"`{name}` must be finite. Received: {received} in {_named(place)}")


def require(name: str, x: npt.NDArray[Any], right: npt.NDArray[np.bool_], wanted: str) -> None:
    """Raise a ValueError that names the first place of x that is not right.

    >>> y = np.array([0, 3])
    >>> require("y", y, y < 2, "classes from 0 to 1")
    Traceback (most recent call last):
    ValueError: `y` must be classes from 0 to 1. Received: 3 in row 1
    """
    if not right.all():
        place = np.argwhere(~right)[0]
        raise ValueError(f"`{name}` must be {wanted}. Received: {x[tuple(place)]} in {_named(place)}")


def _named(place: Any) -> str:
    row, *columns = place
    return f"row {row}" + (f", column {', '.join(map(str, columns))}" if columns else "")
