"""Tables that tests fill, and that are printed at the end of all tests."""

from collections import Counter

TABLES: dict[str, dict[str, Counter[str]]] = {
    "faults": {},
    "honest models, saved and loaded": {},
    "model.fit and toolkit.fit": {},
}


def record_fault(fault: str, tried: int, harmed: int) -> None:
    """Add to a row of the table of faults."""
    TABLES["faults"].setdefault(fault, Counter()).update(tried=tried, harmed=harmed)


def record_honest(kind: str, outcome: str) -> None:
    """Add a model to a row of the table of honest models: "equal", or "refused by Keras, too"."""
    TABLES["honest models, saved and loaded"].setdefault(kind, Counter()).update(tried=1, **{outcome: 1})
