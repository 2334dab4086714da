"""Order, loading and augmentation."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hcr.errors import DataError
from hcr.feed.augment import augment
from hcr.feed.loader import Batch, Loader, PackDataset
from hcr.feed.order import SequentialBatches, TrainingBatches, epoch_order, steps_per_epoch
from hcr.pack.store import open_pack


def test_order_is_a_pure_permutation() -> None:
    first = epoch_order(1000, seed=3, epoch=5)
    assert np.array_equal(first, epoch_order(1000, seed=3, epoch=5))
    assert np.array_equal(np.sort(first), np.arange(1000))
    assert not np.array_equal(first, epoch_order(1000, seed=3, epoch=6))
    assert not np.array_equal(first, epoch_order(1000, seed=4, epoch=5))


def test_an_epoch_started_in_its_middle_goes_on_alike() -> None:
    whole, part = TrainingBatches(103, 10, seed=1), TrainingBatches(103, 10, seed=1)
    whole.epoch = part.epoch = 2
    part.start = 4
    assert len(whole) == steps_per_epoch(103, 10) == 10 and len(part) == 6
    for a, b in zip(list(whole)[4:], part, strict=True):
        assert np.array_equal(a, b)


def test_evaluation_sees_every_sample_once() -> None:
    batches = list(SequentialBatches(23, 5))
    assert len(batches) == len(SequentialBatches(23, 5)) == 5
    assert np.array_equal(np.concatenate(batches), np.arange(23))


def batches_of(path: Path, workers: int, *, epochs: int = 2) -> list[Batch]:
    order = TrainingBatches(84, 20, seed=0)
    loader = Loader(path, order, workers=workers)
    found = []
    for epoch in range(epochs):
        order.epoch = epoch
        found += list(loader)
    return found


def test_any_number_of_workers_gives_the_same_batches(small_pack: Path) -> None:
    path = small_pack / "train.lmdb"
    expected = batches_of(path, 0)
    reader = open_pack(path)
    assert len(expected) == 8
    for batch in expected:
        assert batch.images.dtype == torch.uint8 and batch.images.shape == (20, 1, 32, 32)
        for image, label, index in zip(batch.images, batch.labels, batch.index.tolist(), strict=True):
            assert np.array_equal(image[0].numpy(), reader.block(0)[index])
            assert label == reader.labels[index]
    # The pack stays open in this process from the first pass: workers forked from it must open it anew.
    for workers in (1, 2):
        for a, b in zip(expected, batches_of(path, workers), strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_one_sample(small_pack: Path) -> None:
    dataset = PackDataset(small_pack / "val.lmdb")
    assert len(dataset) == 12
    assert dataset[7].images.shape == (1, 1, 32, 32) and dataset[7].index.tolist() == [7]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_block_is_never_trained_on(small_pack: Path, tmp_path: Path, workers: int) -> None:
    path = Path(shutil.copy(small_pack / "train.lmdb", tmp_path / "train.lmdb"))
    reader = open_pack(path)
    pixels = reader.block(0).tobytes()
    raw = bytearray(path.read_bytes())
    raw[raw.index(pixels[:4096]) + 99] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"train\.lmdb: key block/00000000: CRC32") as caught:
        list(Loader(path, TrainingBatches(84, 20, seed=0), workers=workers))
    assert "\n" not in str(caught.value)


def strokes(count: int) -> torch.Tensor:
    images = torch.full((count, 1, 64, 64), 255, dtype=torch.uint8)
    images[:, :, 12:52, 30:34] = 0
    images[:, :, 20:24, 14:50] = 60
    return images


def test_augmentation_is_keyed_by_seed_and_step() -> None:
    images = strokes(8)
    first = augment(images, seed=1, step=10)
    assert first.dtype == torch.uint8 and first.shape == images.shape
    assert torch.equal(first, augment(images, seed=1, step=10))
    assert not torch.equal(first, augment(images, seed=1, step=11))
    assert not torch.equal(first, augment(images, seed=2, step=10))
    before = torch.get_rng_state()
    augment(images, seed=1, step=12)
    assert torch.equal(before, torch.get_rng_state())


def test_augmentation_moves_each_picture_its_own_way_and_keeps_the_ink() -> None:
    images = strokes(64)
    moved = augment(images, seed=0, step=0)
    assert len({picture.numpy().tobytes() for picture in moved}) == 64
    ink, moved_ink = (float((255 - x.float()).sum()) for x in (images, moved))
    assert 0.85 < moved_ink / ink < 1.15
    # Paper comes in at the borders, and nothing is mirrored: the crossbar stays in the upper half.
    assert (moved[:, 0, 0] == 255).all()
    rows = (255 - moved.float()).sum(dim=(1, 3))
    assert (rows[:, :32].sum(1) > rows[:, 32:].sum(1)).all()
