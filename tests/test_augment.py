"""Augmentation: keyed by (seed, step), each picture in its own way, and still the same character."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hcr.feed import augment as strengths
from hcr.feed.augment import _Ink, augment


def strokes(count: int, side: int = 64) -> Tensor:
    images = torch.full((count, 1, 64, 64), 255, dtype=torch.uint8)
    images[:, :, 12:52, 30:34] = 0
    images[:, :, 20:24, 14:50] = 60
    return images[:, :, :: 64 // side, :: 64 // side].contiguous()


def test_it_is_keyed_by_seed_and_step() -> None:
    images = strokes(8)
    first = augment(images, seed=1, step=10)
    assert first.dtype == torch.uint8 and first.shape == images.shape
    assert torch.equal(first, augment(images, seed=1, step=10))
    assert not torch.equal(first, augment(images, seed=1, step=11))
    assert not torch.equal(first, augment(images, seed=2, step=10))
    before, given = torch.get_rng_state(), images.clone()
    augment(images, seed=1, step=12)
    assert torch.equal(before, torch.get_rng_state()) and torch.equal(images, given)


def test_each_picture_goes_its_own_way_and_keeps_its_ink() -> None:
    images = strokes(64)
    moved = augment(images, seed=0, step=0)
    assert len({picture.numpy().tobytes() for picture in moved}) == 64
    ink, moved_ink = (float((255 - x.float()).sum()) for x in (images, moved))
    assert 0.85 < moved_ink / ink < 1.15
    # Paper comes in at the borders, and nothing is mirrored: the crossbar stays in the upper half.
    assert moved[:, 0, 0].float().mean() > 250
    rows = (255 - moved.float()).sum(dim=(1, 3))
    assert (rows[:, :32].sum(1) > rows[:, 32:].sum(1)).all()


def test_threads_and_autocast_change_no_pixel() -> None:
    images = strokes(301)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(augment(images, seed=5, step=9))
    finally:
        torch.set_num_threads(before)
    with torch.autocast("cpu", torch.bfloat16):
        found.append(augment(images, seed=5, step=9))
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("count", [1, 2, 50])
def test_batches_of_any_size(side: int, count: int) -> None:
    images = strokes(count, side)
    assert augment(images, seed=0, step=3).shape == images.shape


def ink_after(change: Callable[[_Ink], None]) -> tuple[Tensor, Tensor]:
    """The ink of 100 pictures before and after one ingredient."""
    before = (255 - strokes(100)).float()
    ink = _Ink(before.clone(), torch.Generator().manual_seed(3))
    change(ink)
    return before, ink.values


def changed(before: Tensor, after: Tensor) -> Tensor:
    return (before != after).flatten(1).any(1)


def test_strokes_get_thinner_on_some_and_thicker_on_others() -> None:
    before, after = ink_after(_Ink.widen)
    sums, new = before.sum((1, 2, 3)), after.sum((1, 2, 3))
    assert int((new < sums).sum()) == 12 and int((new > sums).sum()) == 12
    assert (new / sums - 1).abs().max() < 0.4


def test_greys_change_on_some_and_black_and_paper_never() -> None:
    before, after = ink_after(_Ink.tone)
    assert int(changed(before, after).sum()) == 25
    extreme = (before == 0) | (before == 255)
    assert torch.equal(before[extreme], after[extreme])
    assert 0.5 < (after[~extreme] / before[~extreme]).min() < 1 < (after[~extreme] / before[~extreme]).max() < 1.5


def test_small_rectangles_become_paper() -> None:
    before = torch.full((100, 1, 64, 64), 200.0)
    ink = _Ink(before.clone(), torch.Generator().manual_seed(3))
    ink.erase()
    gone = ink.values == 0
    assert int(changed(before, ink.values).sum()) == round(100 * strengths.ERASED_SHARE)
    for picture in gone[gone.flatten(1).any(1)]:
        height, width = int(picture[0].any(1).sum()), int(picture[0].any(0).sum())
        assert int(picture.sum()) == height * width and max(height, width) <= 64 * strengths.ERASED + 1


def test_noise_falls_on_some() -> None:
    before, after = ink_after(_Ink.noise)
    assert int(changed(before, after).sum()) == 20
    assert 1 < (after - before)[changed(before, after)].std() < 255 * strengths.NOISE
