"""Random small models, trained by `model.fit` and by ours: all that a user can see is the same."""

import concurrent.futures
import multiprocessing
import os

import pytest
from training.generated import hold


@pytest.mark.parametrize("examples", [20, pytest.param(150, marks=pytest.mark.slow)])
def test_random_models_are_trained_as_by_model_fit(examples):
    hold(examples)


@pytest.mark.soak
def test_thousands_of_random_models_are_trained_as_by_model_fit():
    # A process a hundred examples: TensorFlow keeps some memory of every function that it has traced.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), spawn, max_tasks_per_child=1) as pool:
        for _ in pool.map(hold, [100] * 30, range(1, 31)):
            pass
