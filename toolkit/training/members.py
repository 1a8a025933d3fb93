"""`Member`, a model with its rows and callbacks; `Settings`; the order of the rows, and whether XLA pays."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from toolkit import _keras
from toolkit.training.arrays import RowNumbers, Table
from toolkit.training.checks import check_count

XLA_STEPS = 1500  # fewer steps than this in all do not earn back the time that XLA needs to compile them


@dataclass(frozen=True)
class Settings:
    """The arguments of `fit` that are the same for all models."""

    epochs: int
    initial_epoch: int
    batch_size: int
    validation_batch_size: int
    validation_steps: int | None
    validation_freq: int | list[int]
    shuffle: bool
    seed: int
    jit: bool | str
    check_finite: bool
    verbose: str | int

    def __post_init__(self) -> None:
        for name in ("epochs", "initial_epoch"):
            check_count(name, getattr(self, name))
        if self.jit not in (True, False, "auto"):
            raise ValueError(f"`jit` must be True, False or 'auto'. Received: {self.jit!r}")
        if not isinstance(self.shuffle, bool | np.bool_):
            raise ValueError(f"`shuffle` must be True or False; use model.fit. Received: {self.shuffle!r}")
        if self.verbose not in ("auto", 0, 1, 2):
            raise ValueError(f"`verbose` must be 'auto', 0, 1 or 2. Received: {self.verbose!r}")

    def use_xla(self, model: keras.Model, table: Table, steps: int) -> bool:
        """Say whether XLA pays for so many steps an epoch."""
        if self.jit == "auto":
            return _xla_pays(model, table, steps * (self.epochs - self.initial_epoch))
        return bool(self.jit)

    def validates_after(self, epoch: int) -> bool:
        """Say whether an epoch, counted from 0, is followed by validation."""
        if isinstance(self.validation_freq, list):
            return epoch + 1 in self.validation_freq
        return (epoch + 1) % self.validation_freq == 0


@dataclass(eq=False)
class Member:
    """A model, the rows that it is trained and validated on, and its callbacks."""

    index: int
    name: str
    model: keras.Model
    rows: RowNumbers
    validation_rows: RowNumbers  # empty: no validation
    callbacks: list[keras.callbacks.Callback]
    settings: Settings

    def order(self, epoch: int) -> RowNumbers:
        """Return the training rows in the order of an epoch: the same for all that have as many."""
        return shuffled(self.rows, self.settings, epoch)


def shuffled(rows: RowNumbers, settings: Settings, epoch: int) -> RowNumbers:
    """Order rows of shape `(..., n)` for an epoch."""
    if not settings.shuffle:
        return rows
    return rows[..., np.random.default_rng([settings.seed, epoch]).permutation(rows.shape[-1])]


def draw_seed(shuffle: bool) -> int:
    """Return Keras's seed, or any, from no generator that somebody else draws from."""
    seed = _keras.random_seed()
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0]) if shuffle else 0
    return seed


def _xla_pays(model: keras.Model, table: Table, steps: int) -> bool:
    """Judge by the model and the number of steps: by timings, runs would not repeat."""
    import tensorflow as tf

    layers = _keras.all_layers(model)
    strings = any(leaf is not None and leaf.dtype.kind in "US" for leaf in table.leaves)
    if table.sparse or strings or not all(layer.supports_jit for layer in layers):
        return False
    if tf.config.list_logical_devices("GPU"):
        return True
    kinds = {cls.__name__ for layer in layers for cls in type(layer).__mro__}
    slow = any("Conv" in kind for kind in kinds)  # XLA's convolutions are, on a CPU
    return not slow and steps >= (XLA_STEPS // 4 if "RNN" in kinds else XLA_STEPS)  # a recurrent step is many


def last_epoch(members: list[Member]) -> int:
    """Return the epoch at which they stop."""
    return members[0].settings.epochs


def finalize(member: Member) -> None:
    """Let a moving average overwrite the weights, as `model.fit` does when it ends."""
    optimizer: Any = member.model.optimizer
    if isinstance(optimizer, keras.optimizers.Optimizer) and member.settings.epochs > 0:
        optimizer.finalize_variable_values(member.model.trainable_weights)
