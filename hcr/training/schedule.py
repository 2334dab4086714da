"""The learning rate and the averaging rate as functions of the step, and of validation losses where these decide."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Of the plateau schedule, as in the tutorial that this project began with.
PATIENCE, FACTOR = 2, 0.5


def learning_rate(step: int, total: int, peak: float, warmup: float) -> float:
    """Give the rate at `step` of `total`: linear to `peak` over the share `warmup`, then a cosine down to peak/1000."""
    rising = round(warmup * total)
    if step < rising:
        return peak * (step + 1) / rising
    falling = (step - rising) / max(1, total - rising)
    return peak * max(1e-3, 0.5 * (1 + math.cos(math.pi * falling)))


def ema_rate(step: int, decay: float) -> float:
    """Give the share of the newest weights in the average.

    Large at first, or a short run would average its start: the average is over the last quarter of what there was,
    roughly, until that is longer than `decay` makes it.
    Source: Shamir, Zhang 2013, "Stochastic gradient descent for non-smooth optimization", polynomial-decay averaging.
    """
    return max(1 - decay, 4 / (step + 4))


@dataclass
class Plateau:
    """Halves the rate when the validation loss has not fallen for more than `PATIENCE` epochs.

    factor: of the rate. best: the lowest loss, None before the first epoch. waited: epochs since then.
    """

    factor: float = 1.0
    best: float | None = None
    waited: int = 0

    def see(self, loss: float) -> None:
        """Take in an epoch's validation loss."""
        if self.best is None or loss < self.best:
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        if self.waited > PATIENCE:
            self.factor, self.waited = self.factor * FACTOR, 0
