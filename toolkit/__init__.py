"""Helpers for studies with Keras 3 on TensorFlow, each loaded when it is first used.

`import toolkit` is instant: `toolkit.kfold` never waits for TensorFlow, `toolkit.fit` does.
"""

import importlib
from typing import TYPE_CHECKING, Any

# ruff: noqa: F401 (editors and type checkers read these imports; Python takes what `_NAMES_IN` says)
if TYPE_CHECKING:
    from toolkit.data import Data, Dataset
    from toolkit.heads import Head, head
    from toolkit.plotting import plot_folds, plot_history
    from toolkit.saving import Checkpoint, load, save
    from toolkit.scaling import MinMaxNormalizer, Standardizer
    from toolkit.splits import kfold
    from toolkit.text import decode, encode, multi_hot
    from toolkit.training import CrossValidation, cross_validate, fit, fit_many

_NAMES_IN = {
    "data": ["Data", "Dataset"],
    "heads": ["Head", "head"],
    "plotting": ["plot_folds", "plot_history"],
    "saving": ["Checkpoint", "load", "save"],
    "scaling": ["MinMaxNormalizer", "Standardizer"],
    "splits": ["kfold"],
    "text": ["decode", "encode", "multi_hot"],
    "training": ["CrossValidation", "cross_validate", "fit", "fit_many"],
}
_MODULE_OF = {name: module for module, names in _NAMES_IN.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}. It has: {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"toolkit.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return __all__
