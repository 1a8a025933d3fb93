"""The batches of many models in step: which rows each takes in which step."""

import math

import numpy as np

from toolkit.training.arrays import RowNumbers
from toolkit.training.members import Settings, shuffled


class Batches:
    """Full batches, in which all models go in step, then the rest, where sizes may differ.

    Attributes:
        full: Steps in which every model has a full batch.
        rest: Number of the step, size of its batches and mask of the models that have such a batch.
    """

    def __init__(self, rows: list[RowNumbers], batch_size: int) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.steps = math.ceil(max(map(len, rows)) / batch_size)
        self.full = min(map(len, rows)) // batch_size
        sizes = {
            step: [min(max(len(each) - step * batch_size, 0), batch_size) for each in rows]
            for step in range(self.full, self.steps)
        }
        self.rest = [
            (step, size, np.equal(of_step, size))
            for step, of_step in sizes.items()
            for size in sorted({*of_step} - {0})
        ]
        # Those that have as many rows see them in the same order.
        alike: dict[int, list[int]] = {}
        for i, each in enumerate(rows):
            alike.setdefault(len(each), []).append(i)
        self.groups = [(group, np.stack([rows[i] for i in group])) for group in alike.values()]

    def order(self, settings: Settings, epoch: int) -> tuple[RowNumbers, list[RowNumbers]]:
        """Return row numbers, shape `(full, models, batch_size)`, and each rest's, `(models, size)`."""
        size = self.batch_size
        full = np.empty((self.full, len(self.rows), size), np.int64)
        rest = [np.zeros((len(self.rows), size), np.int64) for _, size, _ in self.rest]
        for group, stacked in self.groups:
            rows = shuffled(stacked, settings, epoch)
            parts = rows[:, : self.full * size].reshape(len(group), self.full, size)
            full[:, group] = parts.transpose(1, 0, 2)
            for (step, rest_size, mask), target in zip(self.rest, rest, strict=True):
                if mask[group[0]]:
                    target[group] = rows[:, step * size : step * size + rest_size]
        return full, rest
