"""Helpers for studies with Keras 3 on TensorFlow, each loaded when it is first used.

`import toolkit` is instant: `toolkit.kfold` never waits for TensorFlow, `toolkit.fit` does.
"""

import importlib
from typing import TYPE_CHECKING, Any

# Editors and type checkers read these imports, whose `as` says that a name is public; Python takes what
# `_NAMES_IN` says.
if TYPE_CHECKING:
    from toolkit.caching import compile_cache as compile_cache
    from toolkit.data import Data as Data
    from toolkit.data import Dataset as Dataset
    from toolkit.heads import Head as Head
    from toolkit.heads import head as head
    from toolkit.plotting import plot_folds as plot_folds
    from toolkit.plotting import plot_history as plot_history
    from toolkit.saving import Checkpoint as Checkpoint
    from toolkit.saving import load as load
    from toolkit.saving import save as save
    from toolkit.scaling import MinMaxNormalizer as MinMaxNormalizer
    from toolkit.scaling import Standardizer as Standardizer
    from toolkit.splits import kfold as kfold
    from toolkit.text import decode as decode
    from toolkit.text import encode as encode
    from toolkit.text import multi_hot as multi_hot
    from toolkit.training import CrossValidation as CrossValidation
    from toolkit.training import cross_validate as cross_validate
    from toolkit.training import fit as fit
    from toolkit.training import fit_many as fit_many

_NAMES_IN = {
    "caching": ["compile_cache"],
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
