import time

import numpy as np
import psutil
import pytest

from toolkit.memory import PeakMemory

SIZE = 300_000_000


def held():
    return psutil.Process().memory_info().rss / 1e6


def test_it_sees_what_is_held_in_between_and_given_back_before_the_end():
    before = held()
    with PeakMemory() as peak:
        array = np.ones(SIZE, dtype=np.uint8)
        time.sleep(0.2)
        del array
        after = held()
    assert after < before + 100  # else the last look would do
    assert before + 290 < peak.megabytes < before + 400
    assert 290 < peak.added < 400


def test_it_does_not_see_what_was_held_before():
    with PeakMemory() as large:
        array = np.ones(SIZE, dtype=np.uint8)
        time.sleep(0.1)
        del array
    with PeakMemory() as small:
        time.sleep(0.1)
    assert small.megabytes < large.megabytes - 200
    assert small.added < 100


def test_an_error_ends_the_watch_and_is_passed_on():
    with pytest.raises(KeyError), PeakMemory() as peak:
        raise KeyError
    assert not peak._thread.is_alive()
