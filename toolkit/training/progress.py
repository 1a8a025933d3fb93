"""What training says while it runs: a bar or lines, warnings, and the records of its log."""

import inspect
import logging
import math
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from toolkit import _keras

LOG = logging.getLogger("toolkit.training")
MANY_EPOCHS = 50  # more epochs than this share one progress bar


def warn(message: str) -> None:
    """Warn of the line, outside this folder, that asked for the training."""
    here = Path(__file__).parent
    files = [Path(frame.filename) for frame in inspect.stack(0)]
    level = next((i for i, file in enumerate(files, 1) if here not in file.parents), 1)
    warnings.warn(message, stacklevel=level)


def to_text(value: Any) -> str:
    """Write the value of a metric with four digits behind the point.

    >>> to_text(0.25), to_text(0.00025)
    ('0.2500', '2.5000e-04')
    """
    if np.ndim(value):
        return str(np.round(np.asarray(value, float), 4))
    return f"{value:.4f}" if abs(value) > 1e-3 else f"{value:.4e}"


class Progress:
    """Keras's bar on a terminal, a line an epoch elsewhere; one bar for all epochs where there are many."""

    def __init__(self, verbose: str | int, epochs: int, groups: int = 1) -> None:
        notebook = "ipykernel" in sys.modules
        terminal = sys.stdout.isatty() or notebook
        self.verbose = int(verbose) if verbose != "auto" else 1 if terminal else 2
        self.epochs = epochs
        many = verbose == "auto" and epochs * groups > MANY_EPOCHS
        self.every = math.ceil(epochs * groups / 20) if many else 1
        self.groups = groups
        self.one_bar = epochs > MANY_EPOCHS or notebook  # where lines cannot be scrolled out of sight
        self.bar: Any = None

    def start(self, name: str) -> None:
        """Name the models that come next, where there are others."""
        if self.verbose and self.groups > 1:
            print(name[:1].upper() + name[1:])

    def begin(self, epoch: int, steps: int) -> None:
        """Begin an epoch."""
        self.epoch = epoch
        self.steps = steps
        self.started = time.perf_counter()
        if self.verbose == 1 and self.bar is None:
            if self.one_bar:
                self.bar = keras.utils.Progbar(self.epochs, stateless_metrics=[], unit_name="epoch")
            else:
                print(f"Epoch {epoch + 1}/{self.epochs}")
                self.bar = keras.utils.Progbar(steps, stateless_metrics=[])

    def step(self, done: int, logs: Any) -> None:
        """Show how many steps of the epoch are done."""
        if self.verbose == 1:
            position = self.epoch + done / self.steps if self.one_bar else done
            self.bar.update(position, _numbers(_keras.to_python(logs)), finalize=False)

    def end(self, logs: dict[str, Any]) -> None:
        """Show the epoch's logs."""
        if self.verbose == 1:
            position = self.epoch + 1 if self.one_bar else self.steps
            last = not self.one_bar or position == self.epochs
            self.bar.update(position, _numbers(logs), finalize=last)
            self.bar = None if last else self.bar
        if self.verbose == 2 and ((self.epoch + 1) % self.every == 0 or self.epoch == 0):
            seconds = time.perf_counter() - self.started
            shown = "".join(f" - {name}: {to_text(value)}" for name, value in logs.items())
            took = f"{seconds:.1f}s" if seconds >= 0.1 else f"{seconds:.2f}s"
            print(f"Epoch {self.epoch + 1}/{self.epochs} - {took}{shown}", flush=True)

    def close(self) -> None:
        """End the line of the bar."""
        if self.bar is not None:
            print()
            self.bar = None


def _numbers(logs: dict[str, Any]) -> list[tuple[str, float]]:
    """Return what Keras's bar can show: a value a metric."""
    return [(name, float(np.mean(value))) for name, value in logs.items()]
