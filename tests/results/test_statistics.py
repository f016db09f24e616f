"""Standard errors, intervals and tests, against scipy, enumeration and made data."""

import itertools
import math

import numpy as np
import pytest
from prunetui.engine.results.statistics import (
    MAX_ENUMERATED,
    RESAMPLES,
    bootstrap_interval,
    mcnemar,
    mean_stderr,
    pooled_stderr,
    sign_flip,
    unweighted_stderr,
)
from scipy.stats import binomtest


def test_the_standard_error_of_a_mean() -> None:
    assert mean_stderr(np.array([0.0, 1, 1, 1])) == pytest.approx(0.25, abs=1e-15)
    assert mean_stderr(np.array([1.0])) is None
    assert mean_stderr(np.array([])) is None
    assert mean_stderr(np.ones(3)) == 0


def test_standard_errors_are_those_of_the_harness() -> None:
    from lm_eval.api import metrics

    rng = np.random.default_rng(1)
    strata = [rng.integers(0, 2, size).astype(float) for size in (2, 7, 40)]
    strata.append(rng.normal(size=5))
    errors = [metrics.mean_stderr(list(values)) for values in strata]
    assert [mean_stderr(values) for values in strata] == pytest.approx(errors, abs=1e-15)
    sizes = [len(values) for values in strata]
    pooled = metrics.pooled_sample_stderr(errors, sizes)
    assert pooled_stderr(strata) == pytest.approx(pooled, abs=1e-15)
    assert unweighted_stderr(strata) == pytest.approx(
        metrics.unweighted_mean_stderr(errors), abs=1e-15
    )


def test_a_stratum_of_one_item_has_no_variance_of_its_own() -> None:
    pair, one = np.array([0.0, 1.0]), np.array([1.0])
    # Squares 1/2 over one degree of freedom, over three items.
    assert pooled_stderr([pair, one]) == pytest.approx(math.sqrt(0.5 / 3))
    assert pooled_stderr([one, one]) is None
    assert unweighted_stderr([pair, one]) is None
    assert pooled_stderr([]) is None
    assert unweighted_stderr([]) is None


@pytest.mark.parametrize(
    ("lost", "gained"), [(0, 0), (1, 0), (5, 0), (0, 6), (3, 3), (2, 9), (40, 61), (700, 790)]
)
def test_mcnemar_is_a_binomial_test(lost: int, gained: int) -> None:
    expected = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_thousands_is_a_number() -> None:
    assert mcnemar(0, 5000) == 0.0
    assert mcnemar(4000, 4100) == pytest.approx(binomtest(4000, 8100).pvalue, rel=1e-9)


def enumerated(values: list[float]) -> float:
    """Share of all choices of signs that give a sum as far from 0."""
    sums = [
        math.fsum(sign * value for sign, value in zip(signs, values, strict=True))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    return sum(abs(total) >= abs(math.fsum(values)) - 1e-12 for total in sums) / len(sums)


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_few_differences_are_permuted_one_and_all(size: int) -> None:
    values = np.random.default_rng(size).normal(0.3, 1, size).round(2)
    assert sign_flip(values) == pytest.approx(enumerated(values.tolist()), abs=1e-15)
    # What did not change has no part.
    assert sign_flip(np.concatenate([values, np.zeros(50)])) == sign_flip(values)


def test_equal_sums_count_though_they_are_rounded() -> None:
    # 0.1 + 0.2 is not 0.3 in floats: without a tolerance the choices of the same sum are lost.
    values = np.array([0.1, 0.2, 0.3, -0.3, 0.6])
    assert sign_flip(values) == enumerated(values.tolist())
    assert sign_flip(np.zeros(4)) == 1
    assert sign_flip(np.array([])) == 1


def test_many_differences_are_permuted_at_random() -> None:
    values = np.random.default_rng(0).normal(0.5, 1, MAX_ENUMERATED + 2)
    p = sign_flip(values)
    exact = enumerated_by_halves(values)
    # Four standard errors of the share, and one draw more.
    assert abs(p - exact) < 4 * math.sqrt(exact * (1 - exact) / RESAMPLES) + 1 / RESAMPLES
    assert p == sign_flip(values)
    assert 0.01 < p < 0.99
    # (k + 1)/(n + 1): never 0.
    assert sign_flip(np.ones(200)) == 1 / (RESAMPLES + 1)


def enumerated_by_halves(values: np.ndarray) -> float:
    """`enumerated`, from the sums of two halves."""

    def sums(half: np.ndarray) -> np.ndarray:
        return np.array(list(itertools.product((1, -1), repeat=len(half)))) @ half

    middle = len(values) // 2
    totals = sums(values[:middle])[:, None] + sums(values[middle:])[None]
    return float(np.mean(np.abs(totals) >= abs(values.sum()) - 1e-12))


def covered(samples: list[list[np.ndarray]], weights: list[float], truth: float) -> float:
    """Share of intervals that hold the truth."""
    held = 0
    for strata in samples:
        interval = bootstrap_interval(strata, weights)
        held += interval is not None and interval[0] <= truth <= interval[1]
    return held / len(samples)


def test_the_interval_of_a_mean_holds_the_truth() -> None:
    rng = np.random.default_rng(3)
    changes = [[rng.choice([-1.0, 0, 1], p=[0.3, 0.6, 0.1], size=200)] for _ in range(250)]
    # The standard error of the share is .013; intervals of one standard error hold it at .68.
    assert 0.91 <= covered(changes, [1.0], -0.2) <= 0.98
    assert covered(changes, [1.0], -0.1) < 0.75


def test_the_interval_of_a_group_holds_the_truth() -> None:
    # Twenty tasks of two items: draws of two from two would make the interval 1/√2 as wide, and
    # hold it at .81; draws over all items would count the tasks' differences in and always hold it.
    rng = np.random.default_rng(4)
    means = np.linspace(-5, 5, 20)
    groups = [[rng.normal(mean, 1, 2) for mean in means] for _ in range(200)]
    assert 0.91 <= covered(groups, [1 / 20] * 20, 0.0) <= 0.98


def test_the_interval_has_the_width_of_the_standard_error() -> None:
    values = np.random.default_rng(5).normal(size=2000)
    error = mean_stderr(values)
    interval = bootstrap_interval([values], [1.0])
    assert error is not None
    assert interval is not None
    assert interval[1] - interval[0] == pytest.approx(2 * 1.96 * error, rel=0.04)
    assert sum(interval) / 2 == pytest.approx(values.mean(), abs=0.1 * error)
    assert bootstrap_interval([values], [1.0]) == interval


def test_weights_are_of_the_tasks() -> None:
    rng = np.random.default_rng(6)
    narrow, wide = rng.normal(1, 0.001, 50), rng.normal(3, 1, 50)
    interval = bootstrap_interval([narrow, wide], [0.75, 0.25])
    error = mean_stderr(wide)
    assert error is not None
    assert interval is not None
    centre = 0.75 * narrow.mean() + 0.25 * wide.mean()
    assert sum(interval) / 2 == pytest.approx(centre, abs=0.02)
    assert interval[1] - interval[0] == pytest.approx(0.25 * 2 * 1.96 * error, rel=0.05)


def test_tasks_of_one_item_are_drawn_from_together() -> None:
    values = np.random.default_rng(7).normal(size=50)
    together = bootstrap_interval([values], [1.0])
    apart = bootstrap_interval([np.array([value]) for value in values], [1 / 50] * 50)
    assert together is not None
    assert apart == pytest.approx(together, abs=1e-12)
    # One such task stays as it is.
    shifted = bootstrap_interval([values, np.array([51.0])], [50 / 51, 1 / 51])
    assert shifted == pytest.approx([bound * 50 / 51 + 1 for bound in together], abs=1e-12)


@pytest.mark.parametrize(
    "strata", [[[0.0] * 9], [[1.0] * 9], [[0.5]], [[]], [[0.0, 0], [1, 1]], []]
)
def test_no_spread_has_no_interval(strata: list[list[float]]) -> None:
    arrays = [np.array(values) for values in strata]
    assert bootstrap_interval(arrays, [1.0] * len(arrays)) is None
