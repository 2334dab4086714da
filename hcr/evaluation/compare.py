"""Two models on the same samples: which is better, and is the difference more than chance.

The comparison is paired, sample by sample: what both get right or wrong says nothing about which is better. So it can
tell differences that are far smaller than either model's interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, erfc, sqrt

import numpy as np

from hcr.evaluation.metrics import Interval, Predictions, Z

# With fewer samples on which the models differ, the test is exact.
EXACT_BELOW = 25


@dataclass(frozen=True)
class Comparison:
    """A model beside another one, on the same n samples.

    difference: top1 - other_top1, with its 95 % interval. gained, lost: samples that only this model, and only the
    other one, gets right. p_value: of McNemar's test, in the form `test`. class_count, class_gained, class_lost:
    int64[C]. other: the file that the other predictions were read from, "" where that is not known.
    """

    n: int
    top1: float
    other_top1: float
    difference: float
    interval: Interval
    gained: int
    lost: int
    p_value: float
    test: str
    class_count: np.ndarray
    class_gained: np.ndarray
    class_lost: np.ndarray
    other: str = ""

    @property
    def significance(self) -> str:
        """The p-value as people write it."""
        return f"p = {self.p_value:.2g}" if self.p_value >= 1e-4 else "p < 0.0001"


def compare(predictions: Predictions, other: Predictions, classes: int) -> Comparison:
    """Compare predictions with those of another model on the same samples in the same order.

    Raises: ValueError where they are not.
    """
    if not (np.array_equal(predictions.index, other.index) and np.array_equal(predictions.target, other.target)):
        raise ValueError("predictions of other samples cannot be compared in pairs")
    target, right, other_right = predictions.target, predictions.hit, other.hit
    n = len(target)
    better, worse = right & ~other_right, other_right & ~right
    gained, lost = int(better.sum()), int(worse.sum())
    p_value, test = mcnemar(gained, lost)
    return Comparison(
        n=n,
        top1=int(right.sum()) / n,
        other_top1=int(other_right.sum()) / n,
        difference=(gained - lost) / n,
        interval=paired_interval(gained, lost, n),
        gained=gained,
        lost=lost,
        p_value=p_value,
        test=test,
        class_count=np.bincount(target, minlength=classes),
        class_gained=np.bincount(target[better], minlength=classes),
        class_lost=np.bincount(target[worse], minlength=classes),
    )


def mcnemar(gained: int, lost: int) -> tuple[float, str]:
    """Test whether samples that only one model gets right are as often one's as the other's: p-value, and the test.

    Source: McNemar 1947, with the continuity correction of Edwards 1948; exact below 25 samples.
    """
    differing = gained + lost
    if differing < EXACT_BELOW:
        tail = sum(comb(differing, k) for k in range(min(gained, lost) + 1))
        return min(1.0, 2 * tail / 2**differing), "exact binomial"
    statistic = max(abs(gained - lost) - 1, 0) ** 2 / differing
    return erfc(sqrt(statistic / 2)), "chi-squared with continuity correction"


def paired_interval(gained: int, lost: int, n: int) -> Interval:
    """Return the 95 % interval of a difference of two shares of the same n samples.

    Source: Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data".
    """
    one, other = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = Z * sqrt((one + other - (one - other) ** 2) / (n + 2))
    return max(-1.0, one - other - half), min(1.0, one - other + half)
