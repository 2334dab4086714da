"""The learning rate and the averaging rate as pure functions of the step: nothing of them needs saving."""

from __future__ import annotations

import math


def learning_rate(step: int, total: int, peak: float, warmup: float) -> float:
    """Give the rate at `step` of `total`: linear to `peak` over the share `warmup`, then a cosine down to peak/1000."""
    rising = round(warmup * total)
    if step < rising:
        return peak * (step + 1) / rising
    falling = (step - rising) / max(1, total - rising)
    return peak * max(1e-3, 0.5 * (1 + math.cos(math.pi * falling)))


def ema_rate(step: int, decay: float) -> float:
    """Give the share of the newest weights in the average: large at first, or a short run would average its start."""
    return 1 - min(decay, (1 + step) / (10 + step))
