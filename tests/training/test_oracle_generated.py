"""Random small models, trained by `model.fit` and by ours: all that a user can see is the same."""

import concurrent.futures
import multiprocessing
import os
from collections import Counter

import pytest
from training.generated import hold
from training.oracle import OUTCOMES


def in_a_process_of_its_own(examples, seeds, at_a_time):
    """Try examples for each seed; TensorFlow keeps some memory of every function that it has traced."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(at_a_time, spawn, max_tasks_per_child=1) as pool:
        for counts in pool.map(hold, [examples] * len(seeds), seeds):
            OUTCOMES.setdefault("generated", Counter()).update(counts)


def test_random_models_are_trained_as_by_model_fit():
    hold(20)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_more_random_models_are_trained_as_by_model_fit(seed):
    in_a_process_of_its_own(50, [seed], 1)


@pytest.mark.soak
def test_thousands_of_random_models_are_trained_as_by_model_fit():
    in_a_process_of_its_own(100, range(10, 40), os.cpu_count())
