"""The same split under conditions that training may not have shown, and how much each of them costs.

A condition changes the squares that the network reads, so that it measures that change alone. Inverted pictures go
through the preprocessing that hcr-predict uses, since that is where polarity is settled. It would remove most noise
too, at many times the cost of the network: what is measured here is the network that gets the noise. Each picture is
changed by a function of itself and its place in the pack, so batches and devices do not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from math import ceil, cos, exp, radians, sin

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hcr.evaluation.analysis import Evaluation
from hcr.evaluation.evaluator import Condition, Evaluator
from hcr.evaluation.groups import Row, tabulate
from hcr.evaluation.metrics import Predictions
from hcr.preprocess.fit import fit_square, to_paper
from hcr.stop import Progress, silent

PLAIN = "as they are"
# Lengths are in pixels of a picture with this side, and grow with the picture.
SIDE = 64


def _on_ink(change: Callable[[Tensor], Tensor]) -> Condition:
    """Make a condition of a change of ink float32[B, 1, S, S], 0 = paper, 255 = black."""

    def condition(images: Tensor, index: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return (255 - change((255 - images).float()).clamp(0, 255).round()).to(torch.uint8)

    return condition


def _one_by_one(change: Callable[[np.ndarray, int], np.ndarray]) -> Condition:
    """Make a condition of a change of one picture uint8[S, S], given its place in the pack."""

    def condition(images: Tensor, index: Tensor) -> Tensor:
        changed = [change(*pair) for pair in zip(images[:, 0].cpu().numpy(), index.tolist(), strict=True)]
        return torch.from_numpy(np.stack(changed)[:, None]).to(images.device)

    return condition


def _widen(pixels: float) -> Condition:
    """Let strokes grow (or shrink, below 0) by this much on each side."""

    def change(ink: Tensor) -> Tensor:
        left, sign = abs(pixels) * ink.shape[-1] / SIDE, 1 if pixels > 0 else -1
        while left > 1e-6:
            around = sign * F.max_pool2d(sign * ink, 3, 1, 1)
            ink = ink + (around - ink) * min(1.0, left)
            left -= 1
        return ink

    return _on_ink(change)


def _move(*, turn: float = 0.0, scale: float = 1.0, shift: float = 0.0) -> Condition:
    """Turn by degrees clockwise, scale, and shift right and down by a share of the side."""

    def change(ink: Tensor) -> Tensor:
        c, s = cos(radians(turn)) / scale, sin(radians(turn)) / scale
        # Where each pixel is read from; grid_sample's picture is 2 wide.
        back = torch.tensor([[c, s, -2 * shift * (c + s)], [-s, c, -2 * shift * (c - s)]], device=ink.device)
        grid = F.affine_grid(back.expand(len(ink), 2, 3), list(ink.shape), align_corners=False)
        return F.grid_sample(ink, grid, align_corners=False)

    return _on_ink(change)


def _blur(pixels: float) -> Condition:
    """Blur by a Gaussian of this standard deviation."""

    def change(ink: Tensor) -> Tensor:
        deviation = pixels * ink.shape[-1] / SIDE
        reach = ceil(3 * deviation)
        weights = torch.tensor([exp(-0.5 * (x / deviation) ** 2) for x in range(-reach, reach + 1)], device=ink.device)
        weights /= weights.sum()
        return F.conv2d(F.conv2d(ink, weights[None, None, None], padding=(0, reach)), weights[None, None, :, None],
                        padding=(reach, 0))  # fmt: skip

    return _on_ink(change)


def _coarser(factor: int) -> Condition:
    """Scale down by `factor` and up again."""

    def change(ink: Tensor) -> Tensor:
        side = ink.shape[-1]
        small = F.interpolate(ink, size=round(side / factor), mode="bilinear", antialias=True).round()
        return F.interpolate(small, size=side, mode="bilinear")

    return _on_ink(change)


def _noise(deviation: float) -> Condition:
    """Add Gaussian noise, of this share of black, to every pixel."""

    def change(picture: np.ndarray, place: int) -> np.ndarray:
        grain = np.random.default_rng(place).standard_normal(picture.shape, np.float32) * (255 * deviation)
        changed: np.ndarray = (picture + grain).clip(0, 255).round().astype(np.uint8)
        return changed

    return _one_by_one(change)


def _jpeg(quality: int) -> Condition:
    """Compress as JPEG and read it again."""

    def change(picture: np.ndarray, place: int) -> np.ndarray:
        file = BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            return np.asarray(image)

    return _one_by_one(change)


def _inverted(picture: np.ndarray, place: int) -> np.ndarray:
    """Light ink on dark paper, as hcr-predict would read it."""
    return fit_square(to_paper(Image.fromarray(255 - picture)), len(picture))


CONDITIONS: dict[str, Condition] = {
    "thinner lines": _widen(-0.5),
    "thicker lines": _widen(0.5),
    "much thicker lines": _widen(1.0),
    "fainter ink": _on_ink(lambda ink: ink * 0.3),
    "darker ink": _on_ink(lambda ink: ink * 2.5),
    "turned left 10°": _move(turn=-10),
    "turned right 10°": _move(turn=10),
    "shifted left and up": _move(shift=-1 / 16),
    "shifted right and down": _move(shift=1 / 16),
    "smaller, 75 %": _move(scale=0.75),
    "larger, 114 %": _move(scale=8 / 7),
    "blurred": _blur(1.0),
    "noise, uncleaned": _noise(0.05),
    "JPEG, quality 20": _jpeg(20),
    "half the resolution": _coarser(2),
    "a third of the resolution": _coarser(3),
    "inverted polarity": _one_by_one(_inverted),
}


def evaluate_conditions(
    evaluator: Evaluator,
    plain: Evaluation,
    progress: Progress = silent,
    on_start: Callable[[str], None] = lambda name: None,
    on_resume: Callable[[int], None] = lambda done: None,
) -> list[Row]:
    """Evaluate the model under every condition; the first row is the split as it is, from `plain`.

    progress: counts the pictures of one condition. on_start: called with a condition's name. on_resume: called with the
    number of its pictures that were done in earlier sittings.
    Raises: Stopped after a signal, with everything kept in the evaluator's folder.
    """
    rows = [_row(PLAIN, plain.predictions)]
    for name, condition in CONDITIONS.items():
        on_start(name)
        predictions, _ = evaluator.predict(progress, on_resume, name=name, condition=condition)
        rows.append(_row(name, predictions))
    return rows


def _row(name: str, predictions: Predictions) -> Row:
    return tabulate(predictions, np.zeros(len(predictions.index), np.int64), [name])[0]
