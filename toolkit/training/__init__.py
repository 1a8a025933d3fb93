"""Train in compiled epochs: the data lies on the device, and a call takes all steps that fit in 0.3 s.

`fit` is `model.fit` for data in memory: the same arguments and the same numbers, sooner,
because `model.fit` spends most of its time around the arithmetic and not in it. `fit_many` trains many models
at once, and `cross_validate` stands on it.
"""

from toolkit.training.api import CrossValidation, cross_validate, fit, fit_many

__all__ = ["CrossValidation", "cross_validate", "fit", "fit_many"]
