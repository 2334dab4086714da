"""Calibration and rejection, against cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hcr.evaluation.calibration import calibrate, coverage_risk, has_scores, reject
from hcr.evaluation.metrics import Predictions


def scored(scores: list[float], right: list[bool]) -> Predictions:
    top = np.array([[0] if hit else [1] for hit in right])
    return Predictions(np.arange(len(right)), np.zeros(len(right), np.int64), top, np.float32(scores)[:, None])


def test_bins_and_their_error() -> None:
    found = calibrate(scored([0.9, 0.9, 0.5, 0.25, 1.0, 0.0], [True, False, True, True, True, False]))
    # Bins of 1/15: 0.9 is in (13/15, 14/15], 0.5 in (7/15, 8/15], 0.25 in (3/15, 4/15], 1 in the last, 0 in the first.
    assert np.flatnonzero(found.n).tolist() == [0, 3, 7, 13, 14] and found.n.sum() == 6 and found.n[13] == 2
    assert found.accuracy[[0, 3, 7, 13, 14]].tolist() == [0, 1, 1, 0.5, 1]
    np.testing.assert_allclose(found.confidence[[0, 3, 7, 13, 14]], [0, 0.25, 0.5, 0.9, 1], atol=1e-7)
    assert math.isnan(found.accuracy[1]) and math.isnan(found.confidence[1])
    assert found.ece == pytest.approx((0 + 0.75 + 0.5 + 2 * 0.4 + 0) / 6, abs=1e-7)
    assert len(found.edges) == 16 and found.edges[[0, -1]].tolist() == [0, 1]


def test_a_bins_upper_edge_belongs_to_it() -> None:
    found = calibrate(scored([3 / 15 - 1e-6, 3 / 15 + 1e-6], [True, True]))
    assert np.flatnonzero(found.n).tolist() == [2, 3]


def test_scores_that_are_right_on_average_have_no_error() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(200_000)
    assert calibrate(scored(score.tolist(), (rng.random(200_000) < score).tolist())).ece < 0.01


def test_equal_scores_are_kept_or_left_together() -> None:
    found = coverage_risk(scored([0.9, 0.9, 0.5, 0.2], [False, True, True, False]))
    np.testing.assert_allclose(found.threshold, [0.9, 0.5, 0.2])
    assert found.coverage.tolist() == [0.5, 0.75, 1.0]
    np.testing.assert_allclose(found.risk, [1 / 2, 1 / 3, 1 / 2])
    assert found.area == pytest.approx((2 * 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_long_curves_are_thinned_but_end_at_everything() -> None:
    rng = np.random.default_rng(1)
    right = rng.random(5000) < 0.9
    found = coverage_risk(scored(rng.random(5000).tolist(), right.tolist()))
    assert len(found.coverage) == 201 and found.coverage[-1] == 1 and (np.diff(found.coverage) > 0).all()
    assert found.risk[-1] == pytest.approx((~right).mean())


@pytest.mark.parametrize("wanted", [0.0, 0.05, 0.2, 0.5])
def test_the_threshold_keeps_what_it_says_and_no_lower_one_does(wanted: float) -> None:
    rng = np.random.default_rng(2)
    score = rng.integers(1, 60, 400) / 60
    predictions = scored(score.tolist(), (rng.random(400) < 0.4 + 0.6 * score).tolist())
    found = reject(predictions, wanted)
    kept = predictions.score[:, 0] >= np.float32(found.threshold)
    if found.n:
        assert kept.sum() == found.n and found.coverage == kept.mean()
        assert found.error == (~predictions.hit[kept]).mean() <= wanted
    for lower in np.unique(predictions.score)[::1]:
        if not lower >= found.threshold:
            assert (~predictions.hit[predictions.score[:, 0] >= lower]).mean() > wanted


def test_where_no_threshold_will_do_nothing_is_kept() -> None:
    found = reject(scored([0.9, 0.5], [False, True]), 0.1)
    assert (found.n, found.coverage) == (0, 0) and math.isnan(found.threshold) and math.isnan(found.error)


def test_predictions_without_scores_are_told() -> None:
    assert has_scores(scored([0.9], [True])) and not has_scores(scored([0.9, math.nan], [True, True]))
