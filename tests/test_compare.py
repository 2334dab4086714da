"""Paired comparison against published and directly computed figures."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from hcr.evaluation.compare import compare, mcnemar, paired_interval
from tests.test_metrics import predictions


def test_a_small_case_by_hand() -> None:
    target = [0, 0, 1, 1, 2, 2]
    ours = predictions(target, [0, 0, 1, 1, 2, 0], 3)
    theirs = predictions(target, [0, 1, 0, 1, 2, 2], 3)
    found = compare(ours, theirs, 3)
    assert (found.n, found.gained, found.lost, found.top1, found.other_top1) == (6, 2, 1, 5 / 6, 4 / 6)
    assert found.difference == pytest.approx(1 / 6) and found.interval[0] < 1 / 6 < found.interval[1]
    assert found.class_gained.tolist() == [1, 1, 0] and found.class_lost.tolist() == [0, 0, 1]
    assert found.class_count.tolist() == [2, 2, 2]
    assert (found.p_value, found.test) == (1.0, "exact binomial")


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 3), (0, 5), (9, 2), (12, 12), (24, 0)])
def test_few_are_tested_exactly(gained: int, lost: int) -> None:
    n = gained + lost
    at_least_as_far = [k for k in range(n + 1) if abs(2 * k - n) >= abs(gained - lost)]
    p_value, test = mcnemar(gained, lost)
    assert p_value == pytest.approx(sum(comb(n, k) for k in at_least_as_far) / 2**n) and test == "exact binomial"


def test_many_are_tested_by_chi_squared() -> None:
    # Agresti, "Categorical data analysis": 150 and 86 differ. (|150 - 86| - 1)² / 236 = 16.82, p = 4.1e-5.
    p_value, test = mcnemar(150, 86)
    assert p_value == pytest.approx(4.115e-5, rel=2e-3) and test.startswith("chi-squared")
    assert mcnemar(86, 150)[0] == p_value and mcnemar(500, 500)[0] == 1.0
    # Where both tests are possible they agree.
    n, low = 30, 8
    exact = 2 * sum(comb(n, k) for k in range(low + 1)) / 2**n
    assert mcnemar(n - low, low)[0] == pytest.approx(exact, rel=0.1)


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        draws = rng.multinomial(400, [0.06, 0.03, 0.91])
        low, high = paired_interval(int(draws[0]), int(draws[1]), 400)
        covered += low <= 0.03 <= high
    assert 0.935 < covered / 2000 < 0.965


def test_other_samples_are_refused() -> None:
    ours, theirs = predictions([0, 1], [0, 1], 3), predictions([0, 2], [0, 1], 3)
    with pytest.raises(ValueError, match="other samples"):
        compare(ours, theirs, 3)
