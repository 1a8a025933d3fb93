"""k-fold splits: row numbers in, row numbers out, so nothing can leak.

scikit-learn's splitters do the work; `kfold` chooses among them and refuses what they would only warn about.
"""

from typing import Any

import numpy as np
import numpy.typing as npt


def kfold(
    n: int, k: int, *, seed: int | None = 0, stratify: Any = None, groups: Any = None
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Cut n rows into k folds, each of which is the validation set once.

    Every row is in exactly one validation fold; their sizes differ by at most one (with `groups`, by as
    little as whole groups allow). Unlike the books' `n // k` slices, no row is dropped.

    Args:
        n: Number of rows.
        k: Number of folds, in `2..n`.
        seed: Shuffles the rows; the same seed gives the same folds. None keeps their order.
        stratify: n class labels: each fold gets every class in its overall proportion.
        groups: n group names: rows of one group (patient, author) stay together.

    Returns:
        k pairs `(train, validation)` of int64 row numbers, each sorted.

    Raises:
        ValueError: `k` is outside `2..n`, a class or the groups are fewer than `k`, or lengths differ.

    Source: Chollet, Deep Learning with Python, section 3.6; sklearn.model_selection.

    >>> for train, validation in kfold(5, 2, seed=None):
    ...     print(train, validation)
    [3 4] [0 1 2]
    [0 1 2] [3 4]
    """
    if not all(isinstance(number, int | np.integer) and not isinstance(number, bool) for number in (n, k)):
        raise ValueError(
            f"`n` and `k` must be integers (for rows x, `n` is len(x)). Received: n={n!r:.60}, k={k!r:.60}"
        )
    if not 2 <= k <= n:
        raise ValueError(f"`k` must be between 2 and n={n}. Received: k={k}")
    for name, values in (("stratify", stratify), ("groups", groups)):
        if values is not None and np.shape(values) != (n,):
            raise ValueError(f"`{name}` must have shape ({n},). Received: shape {np.shape(values)}")
    if stratify is not None:
        classes, counts = np.unique(stratify, return_counts=True)
        if counts.min() < k:
            raise ValueError(
                f"`stratify` must have at least k={k} rows of each class. "
                f"Received: {counts.min()} of class {classes[counts.argmin()]}"
            )
    if groups is not None and len(np.unique(groups)) < k:
        raise ValueError(f"`groups` must have at least k={k} groups. Received: {len(np.unique(groups))}")

    from sklearn import model_selection  # half a second, paid at the first call, not by every import

    kind = ("Stratified" if stratify is not None else "") + ("Group" if groups is not None else "") + "KFold"
    splitter = getattr(model_selection, kind)(k, shuffle=seed is not None, random_state=seed)
    rows = np.arange(n)
    return [(rows[train], rows[validation]) for train, validation in splitter.split(rows, stratify, groups)]
