"""Helpers for studies with Keras 3 on TensorFlow, each loaded when it is first used.

`import toolkit` is instant: `toolkit.kfold` never waits for TensorFlow, `toolkit.fit` does.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.data import Data, Dataset
    from toolkit.heads import Head, head
    from toolkit.plotting import plot_folds, plot_history
    from toolkit.saving import Checkpoint, load, save
    from toolkit.scaling import MinMaxNormalizer, Standardizer
    from toolkit.splits import kfold
    from toolkit.text import decode, encode, multi_hot
    from toolkit.training import CrossValidation, cross_validate, fit, fit_many

_MODULE_OF = {
    "Checkpoint": "saving",
    "CrossValidation": "training",
    "Data": "data",
    "Dataset": "data",
    "Head": "heads",
    "MinMaxNormalizer": "scaling",
    "Standardizer": "scaling",
    "cross_validate": "training",
    "decode": "text",
    "encode": "text",
    "fit": "training",
    "fit_many": "training",
    "head": "heads",
    "kfold": "splits",
    "load": "saving",
    "multi_hot": "text",
    "plot_folds": "plotting",
    "plot_history": "plotting",
    "save": "saving",
}

__all__ = [
    "Checkpoint",
    "CrossValidation",
    "Data",
    "Dataset",
    "Head",
    "MinMaxNormalizer",
    "Standardizer",
    "cross_validate",
    "decode",
    "encode",
    "fit",
    "fit_many",
    "head",
    "kfold",
    "load",
    "multi_hot",
    "plot_folds",
    "plot_history",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}. It has: {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"toolkit.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return __all__
