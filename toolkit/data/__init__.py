"""The real data sets, verified, their tokens, and an embedded sample for when they cannot be had."""

from toolkit.data.files import download
from toolkit.data.sets import Data, DataNotFoundError, Dataset, Origin

__all__ = ["Data", "DataNotFoundError", "Dataset", "Origin", "download"]
