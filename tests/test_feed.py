"""Order and loading: the same batches every way, and nothing overwritten while somebody looks at it."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch

from hcr.errors import DataError, HcrError, UsageError
from hcr.feed.loader import Loader
from hcr.feed.mmap import pictures_of
from hcr.feed.ring import Ring
from hcr.feed.sampler import Batch, SequentialBatches, TrainingBatches, epoch_order, steps_per_epoch
from hcr.feed.stream import AHEAD, HELD, WorkerError
from hcr.pack.store import open_reader

WAYS: list[dict[str, Any]] = [
    {"workers": 0},
    {"workers": 1},
    {"workers": 2},
    {"workers": 2, "cache": "ram"},
    {"cache": "device"},
]


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


def write_pack(path: Path, template: Path, pictures: np.ndarray, count: int | None = None) -> None:
    """Write `pictures` uint8[N, S, S] by docs/formats.md, with the charset of another pack; `count` lies about N."""
    number = len(pictures) if count is None else count
    # Another number of pictures a block than ours: readers go by the meta.
    meta = open_reader(template).meta | {"count": number, "size": pictures.shape[-1], "block": 256}
    with (
        lmdb.open(str(path), subdir=False, map_size=1 << 28, lock=False) as environment,
        environment.begin(write=True) as put,
    ):
        for start in range(0, len(pictures), 256):
            pixels = pictures[start : start + 256].tobytes()
            put.put(b"block/%08d" % (start // 256), pixels + zlib.crc32(pixels).to_bytes(4, "little"))
        labels = np.arange(number) % len(meta["characters"])
        put.put(b"labels", labels.astype("<u2").tobytes())
        put.put(b"writers", bytes(2 * number))
        put.put(b"meta", json.dumps(meta).encode())


@pytest.fixture(scope="module")
def blocks(small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A pack of four blocks, the last one short, of a side that fits no page; and its pictures."""
    pictures = np.random.default_rng(0).integers(0, 256, (903, 33, 33), np.uint8)
    path = tmp_path_factory.mktemp("blocks") / "train.lmdb"
    write_pack(path, small_pack / "train.lmdb", pictures)
    return path, pictures


def require_right(batch: Batch, pictures: np.ndarray) -> None:
    index = batch.index.numpy()
    assert np.array_equal(batch.images.numpy()[:, 0], pictures[index])
    assert np.array_equal(batch.labels.numpy(), index % 12)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_gives_the_same_batches(blocks: tuple[Path, np.ndarray], way: dict[str, Any]) -> None:
    path, pictures = blocks
    order = TrainingBatches(903, 50, seed=4)
    loader = Loader(path, order, **way)
    for epoch in range(2):
        order.epoch, order.start = epoch, 3 * epoch
        expected = epoch_order(903, 4, epoch)
        step = order.start
        for step, batch in enumerate(loader, order.start):
            assert batch.images.dtype == torch.uint8 and batch.images.shape == (50, 1, 33, 33)
            assert batch.labels.dtype == batch.index.dtype == torch.int64
            assert np.array_equal(batch.index.numpy(), expected[step * 50 : step * 50 + 50])
            require_right(batch, pictures)
        assert step == 17 and len(loader) == 18 - order.start
    found = list(Loader(path, SequentialBatches(903, 200), **way))
    assert [len(batch.labels) for batch in found] == [200, 200, 200, 200, 103]
    for batch in found:
        require_right(batch, pictures)
    assert np.array_equal(torch.cat([batch.index for batch in found]).numpy(), np.arange(903))


@pytest.mark.parametrize("held", ["batches", "views", "arrays"])
def test_nothing_that_somebody_holds_is_overwritten(blocks: tuple[Path, np.ndarray], held: str) -> None:
    path, pictures = blocks
    order = TrainingBatches(903, 9, seed=0)
    loader = Loader(path, order, workers=2)
    kept: list[tuple[np.ndarray, Any]] = []
    for epoch in range(3):
        order.epoch = epoch
        for batch in loader:
            index = batch.index.numpy()
            # More than there are slots are held for ever; those between come and go.
            if held == "batches":
                kept.append((index, batch.images))
            elif len(kept) < 40 and index[0] % 3:
                kept.append((index[2:3], batch.images[2:3] if held == "views" else batch.images.numpy()[2:3]))
            del batch
    assert len(kept) == (300 if held == "batches" else 40) > 2 * AHEAD + HELD
    for index, images in kept:
        assert np.array_equal(np.asarray(images)[:, 0], pictures[index])


def test_a_slot_is_free_when_its_last_view_is_gone() -> None:
    ring = Ring(1, rows=3, size=8)
    assert ring.take() == 0 and ring.take() is None
    ring.slot(0, 3).fill_(7)
    tensor = ring.lend(0, 2)
    assert tensor.shape == (2, 1, 8, 8) and (tensor == 7).all()
    view = tensor[1:].permute(3, 0, 1, 2)[2:].numpy()
    del tensor
    assert ring.take() is None and (view == 7).all()
    del view
    assert ring.take() == 0
    ring.put_back(0)
    assert ring.take() == 0
    last = ring.lend(0, 1)
    del ring
    assert (last == 7).all()


def test_passes_that_are_left_lose_no_slot(blocks: tuple[Path, np.ndarray]) -> None:
    path, pictures = blocks
    loader = Loader(path, TrainingBatches(903, 20, seed=0), workers=2)
    for _ in range(5):
        for count, batch in enumerate(loader):
            require_right(batch, pictures)
            if count == 2:
                break
    for batch in loader:
        require_right(batch, pictures)
    del batch
    assert loader._stream._running
    ring = loader._stream._running[0]
    assert sorted(ring.take() for _ in range(2 * AHEAD + HELD)) == list(range(2 * AHEAD + HELD))  # type: ignore[type-var]


@pytest.mark.parametrize("wrong", [-1, 903])
def test_no_sample_outside_the_pack(blocks: tuple[Path, np.ndarray], wrong: int) -> None:
    with pytest.raises(IndexError, match="among 903"):
        pictures_of(blocks[0]).read(np.array([0, wrong]), torch.empty((2, 1, 33, 33), dtype=torch.uint8))


def test_a_pack_replaced_during_a_pass(blocks: tuple[Path, np.ndarray], small_pack: Path, tmp_path: Path) -> None:
    path, pictures = tmp_path / "train.lmdb", blocks[1]
    shutil.copy(blocks[0], path)
    write_pack(tmp_path / "new.lmdb", small_pack / "train.lmdb", 255 - pictures)
    passing = iter(Loader(path, SequentialBatches(903, 100)))
    require_right(next(passing), pictures)
    os.replace(tmp_path / "new.lmdb", path)
    require_right(next(passing), pictures)
    open_reader(path)  # which closes the old file: its memory is gone
    with pytest.raises(DataError, match=r"train\.lmdb: was replaced by another pack while it was read; start again"):
        next(passing)
    for batch in Loader(path, SequentialBatches(903, 100)):
        require_right(batch, 255 - pictures)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_damaged_block_is_never_trained_on(
    blocks: tuple[Path, np.ndarray], tmp_path: Path, way: dict[str, Any]
) -> None:
    path = Path(shutil.copy(blocks[0], tmp_path / "train.lmdb"))
    raw = bytearray(path.read_bytes())
    raw[raw.index(blocks[1][600].tobytes()) + 99] ^= 1
    path.write_bytes(raw)
    seen = []
    with pytest.raises(DataError, match=r"train\.lmdb: key block/00000002: CRC32") as caught:
        for batch in Loader(path, SequentialBatches(903, 100), **way):
            seen.append(batch)
    assert "\n" not in str(caught.value)
    assert len(seen) == (0 if "cache" in way else 5)
    for batch in seen:
        require_right(batch, blocks[1])


def test_a_killed_worker_is_one_error_and_the_next_pass_is_whole(blocks: tuple[Path, np.ndarray]) -> None:
    path, pictures = blocks
    others = set(multiprocessing.active_children())
    loader = Loader(path, TrainingBatches(903, 9, seed=0), workers=2)
    victim = 0
    message = (
        r"^reading batches: worker process \d+ was killed by SIGKILL \([\d,]+ bytes free in /.*\); if memory ran out"
    )
    with pytest.raises(WorkerError, match=message) as caught:
        for batch in loader:
            require_right(batch, pictures)
            victim = victim or (set(multiprocessing.active_children()) - others).pop().pid or 0
            os.kill(victim, signal.SIGKILL)
    assert str(victim) in str(caught.value)
    kept = list(loader)
    assert len(kept) == 100
    for batch in kept:
        require_right(batch, pictures)


SCRIPT = """
import multiprocessing, sys
from pathlib import Path
from hcr.feed.loader import Loader
from hcr.feed.sampler import TrainingBatches

if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    ways = [Loader(Path(sys.argv[1]), TrainingBatches(903, 30, seed=0), workers=workers) for workers in (0, 1)]
    batches = [list(way) for way in ways]
    assert len(batches[0]) == 30
    for a, b in zip(*batches, strict=True):
        assert all((x == y).all() for x, y in zip(a[:3], b[:3], strict=True))
    print("same")
"""


def test_workers_that_are_not_forked(blocks: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(script), str(blocks[0])], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout == "same\n" and not done.stderr


def test_what_has_no_room_is_refused(small_pack: Path, tmp_path: Path) -> None:
    with pytest.raises(
        HcrError, match=r"shared memory for batches: 429,496,729,600 bytes .* found /dev/shm [\d,]+"
    ) as no:
        Ring(100, rows=65_536, size=256)
    assert "\n" not in str(no.value)
    path = tmp_path / "train.lmdb"
    write_pack(path, small_pack / "train.lmdb", np.zeros((1, 256, 256), np.uint8), count=8_000_000)
    for cache in ("ram", "device"):
        with pytest.raises(HcrError, match=r"train\.lmdb: 524,288,000,000 bytes of pictures, found [\d,]+ free in mem"):
            Loader(path, SequentialBatches(1, 1), cache=cache)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cache 'disk': expected one of none, ram, device"):
        Loader(path, SequentialBatches(1, 1), cache="disk")  # type: ignore[arg-type]


def test_workers_end_with_a_process_that_still_iterates(blocks: tuple[Path, np.ndarray]) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom hcr.feed.loader import Loader\n"
        "from hcr.feed.sampler import SequentialBatches\nfrom hcr.stop import StopFlag\n"
        "with StopFlag():\n"
        "    held = iter(Loader(Path(sys.argv[1]), SequentialBatches(903, 10), workers=2))\n"
        "    print(len(next(held).labels))\n"
        "sys.held = held\n"
    )
    # With more workers than cores torch would warn.
    command = [sys.executable, "-W", "ignore:This DataLoader will create", "-c", code, str(blocks[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "10\n", "")
