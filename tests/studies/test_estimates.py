import numpy as np
import pytest
from scipy import stats

from taskdisc.studies.estimates import interval, mean_and_sem, plus_minus, sign_of
from taskdisc.taskness.confirm import t_task


def test_mean_and_standard_error_leave_nan_out() -> None:
    mean, sem = mean_and_sem(np.array([[1.0, np.nan, np.nan], [3.0, 2.0, np.nan]]))
    np.testing.assert_allclose(mean, [2, 2, np.nan])
    np.testing.assert_allclose(sem, [1, np.nan, np.nan])
    assert plus_minus([1, 3], 1) == "2.0 ± 1.0"
    assert plus_minus([2], 1) == "2.0"


def test_the_interval_is_that_of_student() -> None:
    values = np.random.default_rng(0).normal(1, 2, 5)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval(values) == pytest.approx((expected.low, expected.high))
    assert interval([1.0]) == (-np.inf, np.inf)


def test_a_sign_is_told_where_the_interval_leaves_0_out() -> None:
    assert sign_of([0.9, 1.0, 1.1]) == 1
    assert sign_of([-0.9, -1.0, -1.1]) == -1
    assert sign_of([0.99, 1.01]) == 1 and sign_of([0.9, 1.1]) == 0  # two repeats say little
    assert sign_of([5.0]) == 0


@pytest.mark.parametrize("n", [3, 5, 20])
def test_one_in_twenty_random_labelings_exceeds_t_task(n: int) -> None:
    rng = np.random.default_rng(n)
    exceeded = [rng.normal() > t_task(rng.normal(size=n)) for _ in range(20_000)]
    assert np.mean(exceeded) == pytest.approx(0.05, abs=0.006)
