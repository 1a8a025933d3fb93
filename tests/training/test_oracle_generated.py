"""Random small models, trained by `model.fit` and by ours: all that a user can see is the same."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from training.generated import plans
from training.oracle import check_fit, check_many

SCALES = [
    20,
    pytest.param(150, marks=pytest.mark.slow),
    pytest.param(3000, marks=pytest.mark.soak),
]


@pytest.mark.parametrize("examples", SCALES)
def test_a_random_model_is_trained_as_by_model_fit(examples):
    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(plans())
    def check(plan):
        with tempfile.TemporaryDirectory() as folder:
            (check_many if plan.models else check_fit)(plan.case(), Path(folder), "generated")

    check()
