"""Tables that tests fill, and that are printed at the end of all tests."""

from collections import Counter

TABLES: dict[str, dict[str, Counter[str]]] = {"faults": {}, "model.fit and toolkit.fit": {}}


def record_fault(fault: str, tried: int, harmed: int) -> None:
    """Add to a row of the table of faults."""
    TABLES["faults"].setdefault(fault, Counter()).update(tried=tried, harmed=harmed)
