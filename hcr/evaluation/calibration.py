"""How far scores can be trusted: calibration, and what is gained by leaving the least certain samples to a person.

The threshold for a target error is chosen on the very samples that it is stated for. On others the error is somewhat
higher: by about its own standard error where thousands of samples are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hcr.evaluation.metrics import Predictions, share

BINS = 15
# The coverage curve has at most this many points.
POINTS = 201


@dataclass(frozen=True)
class Calibration:
    """Reliability: samples sorted by the score of their first answer into 15 equally wide bins (low, high].

    ece: expected calibration error, the mean distance of accuracy and confidence over all samples. edges: float64[16].
    n: int64[15]; confidence (mean) and accuracy: float64[15], nan for an empty bin.

    Source: Guo et al. 2017, "On calibration of modern neural networks".
    """

    ece: float
    edges: np.ndarray
    n: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


@dataclass(frozen=True)
class Coverage:
    """Risk against coverage: what share of the samples is kept at each threshold, and how many of those are wrong.

    threshold, coverage, risk: float64[M], coverage ascending to 1. area: the mean risk over all coverages (AURC).
    """

    threshold: np.ndarray
    coverage: np.ndarray
    risk: np.ndarray
    area: float


@dataclass(frozen=True)
class Rejection:
    """The lowest threshold at which no more than the share `target` of the kept samples is wrong.

    n: samples kept, those with a score of at least `threshold`. coverage: their share of all. error: the share of
    them that is wrong. Where no threshold reaches the target, nothing is kept, and threshold and error are nan.
    """

    target: float
    threshold: float
    coverage: float
    error: float
    n: int


def has_scores(predictions: Predictions) -> bool:
    """Tell whether every first answer has a score; external predictions may have none."""
    return not np.isnan(predictions.score[:, 0]).any()


def calibrate(predictions: Predictions) -> Calibration:
    """Sort the samples into bins by confidence; `predictions` must have scores."""
    score, hit = predictions.score[:, 0].astype(np.float64), predictions.hit
    place = (np.ceil(score * BINS).astype(np.int64) - 1).clip(0, BINS - 1)
    n = np.bincount(place, minlength=BINS)
    sums = np.bincount(place, weights=score, minlength=BINS)
    right = np.bincount(place[hit], minlength=BINS)
    return Calibration(
        ece=float(np.abs(sums - right).sum() / len(score)),
        edges=np.linspace(0, 1, BINS + 1),
        n=n,
        confidence=share(sums, n),
        accuracy=share(right, n),
    )


def coverage_risk(predictions: Predictions) -> Coverage:
    """Compute risk against coverage; samples of equal score are kept or left together. Scores are needed."""
    threshold, kept, wrong = _ranked(predictions)
    risk = wrong / kept
    shown = np.unique(np.linspace(0, len(kept) - 1, min(POINTS, len(kept))).round().astype(np.int64))
    return Coverage(
        threshold=threshold[shown],
        coverage=kept[shown] / kept[-1],
        risk=risk[shown],
        area=float((risk * np.diff(kept, prepend=0)).sum() / kept[-1]),
    )


def reject(predictions: Predictions, target: float) -> Rejection:
    """Find the threshold that keeps most samples with an error of at most `target`; scores are needed."""
    threshold, kept, wrong = _ranked(predictions)
    reached = np.flatnonzero(wrong <= target * kept)
    if not len(reached):
        return Rejection(target, float("nan"), 0.0, float("nan"), 0)
    last = reached[-1]
    n = int(kept[last])
    return Rejection(target, float(threshold[last]), n / int(kept[-1]), int(wrong[last]) / n, n)


def _ranked(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each score that occurs, highest first, with the samples that reach it and the wrong ones among them."""
    score = predictions.score[:, 0].astype(np.float64)
    order = np.argsort(-score, kind="stable")
    score, wrong = score[order], np.cumsum(~predictions.hit[order])
    ends = np.flatnonzero(np.append(score[1:] != score[:-1], True))
    return score[ends], ends + 1, wrong[ends]
