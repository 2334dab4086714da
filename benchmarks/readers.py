"""Ways to load shuffled batches of 512: each gives, for ever, the number of pictures of one batch after another.

Every way is written as its own documentation recommends, with the same number of worker processes and torch's default
prefetching. Where a library leaves a choice, the quicker one is taken: pictures stay uint8, and none is resized but the
tutorial's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import BATCH, SIZE
from PIL import Image
from torch.utils.data import DataLoader, Dataset

SHUFFLE_BUFFER = 5000  # of webdataset: its examples use 1,000 to 10,000


def _for_ever(batches: Iterable[Any], images: Callable[[Any], Any] = lambda batch: batch[0]) -> Iterator[int]:
    while True:
        for batch in batches:
            yield len(images(batch))


def _loader(dataset: Any, workers: int) -> DataLoader[Any]:
    return DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0)


def _ours(cache: str) -> Callable[[Path, int], Iterator[int]]:
    def batches(store: Path, workers: int) -> Iterator[int]:
        from hcr.feed.loader import Loader
        from hcr.feed.sampler import TrainingBatches
        from hcr.pack.store import open_reader

        path = store / "train.lmdb"
        order = TrainingBatches(len(open_reader(path)), BATCH, seed=0)
        loader = Loader(path, order, workers=workers, cache=cache)
        while True:
            for batch in loader:
                yield len(batch.images)
            order.epoch += 1

    return batches


class TutorialDataset(Dataset[Any]):
    """A list file of names and labels, one PNG opened a sample, grey made RGB, squashed to `side` px."""

    def __init__(self, store: Path, side: int = 32) -> None:
        from torchvision import transforms

        self.folder = store
        with (store / "list.txt").open() as file:
            self.samples = [line.split() for line in file]
        self.transform = transforms.Compose(
            [
                transforms.Resize((side, side)),
                transforms.ToTensor(),
                transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
                transforms.ColorJitter(),
            ]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        name, label = self.samples[index]
        return self.transform(Image.open(f"{self.folder}/{name}").convert("RGB")), int(label)


def _tutorial(store: Path, workers: int) -> Iterator[int]:
    return _for_ever(_loader(TutorialDataset(store), workers))


def _open_grey(path: str) -> Image.Image:
    with open(path, "rb") as file:
        return Image.open(file).convert("L")


def _image_folder(store: Path, workers: int) -> Iterator[int]:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import PILToTensor

    return _for_ever(_loader(ImageFolder(str(store), PILToTensor(), loader=_open_grey), workers))


class _LmdbDataset(Dataset[Any]):
    """A sample a value; the environment is opened by the process that reads."""

    def __init__(self, store: Path, decode: Callable[[bytes], np.ndarray]) -> None:
        import lmdb

        self.store, self.decode, self.transaction = store, decode, None
        with lmdb.open(str(store), readonly=True, lock=False) as env, env.begin() as transaction:
            self.count = int(transaction.get(b"count"))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self.transaction is None:
            import lmdb

            env = lmdb.open(str(self.store), readonly=True, lock=False, readahead=False, meminit=False)
            self.transaction = env.begin()
        value = self.transaction.get(b"%09d" % index)
        return torch.from_numpy(self.decode(value[2:])[None]), int.from_bytes(value[:2], "little")


def _decode_png(value: bytes) -> np.ndarray:
    return np.array(Image.open(BytesIO(value)))


def _decode_raw(value: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(value), np.uint8).reshape(SIZE, SIZE)


def _lmdb_png(store: Path, workers: int) -> Iterator[int]:
    return _for_ever(_loader(_LmdbDataset(store, _decode_png), workers))


def _lmdb_raw(store: Path, workers: int) -> Iterator[int]:
    return _for_ever(_loader(_LmdbDataset(store, _decode_raw), workers))


class _Hdf5Dataset(Dataset[Any]):
    """One read a sample at a shuffled index; the file is opened by the process that reads."""

    def __init__(self, store: Path) -> None:
        import h5py

        self.store, self.file = store, None
        with h5py.File(store, "r") as file:
            self.count = len(file["trn/x"])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self.file is None:
            import h5py

            self.file = h5py.File(self.store, "r")
            self.images, self.labels = self.file["trn/x"], self.file["trn/y"]
        return torch.from_numpy(self.images[index]), int(self.labels[index, 0])


def _hdf5(store: Path, workers: int) -> Iterator[int]:
    return _for_ever(_loader(_Hdf5Dataset(store), workers))


def _webdataset(store: Path, workers: int) -> Iterator[int]:
    import webdataset

    shards = sorted(map(str, store.glob("*.tar")))
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), empty_check=False)
        .shuffle(SHUFFLE_BUFFER)
        .decode("l8")
        .to_tuple("png", "cls")
        .batched(BATCH, partial=False)
    )
    return _for_ever(
        webdataset.WebLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    )


def _litdata(store: Path, workers: int) -> Iterator[int]:
    import litdata

    dataset = litdata.StreamingDataset(str(store), shuffle=True, drop_last=True)
    loader = litdata.StreamingDataLoader(
        dataset, batch_size=BATCH, num_workers=workers, drop_last=True, persistent_workers=workers > 0
    )
    return _for_ever(loader, lambda batch: batch["image"])


def _datasets(store: Path, workers: int) -> Iterator[int]:
    import datasets

    datasets.disable_progress_bars()
    opened = datasets.load_dataset(
        "parquet", data_files=str(store), cache_dir=f"{store}.arrow", split="train"
    ).with_format("torch")
    return _for_ever(_loader(opened, workers), lambda batch: batch["image"])


def _limit(store: Path, workers: int) -> Iterator[int]:
    from hcr.feed.loader import load_resident

    images = load_resident(store / "train.lmdb", "cpu")
    while True:
        for chosen in torch.randperm(len(images)).split(BATCH):
            if len(chosen) == BATCH:
                yield len(torch.index_select(images, 0, chosen))


BATCHES: dict[str, Callable[[Path, int], Iterator[int]]] = {
    "stream": _ours("none"),
    "ram": _ours("ram"),
    "tutorial": _tutorial,
    "image-folder": _image_folder,
    "lmdb-png": _lmdb_png,
    "lmdb-raw": _lmdb_raw,
    "hdf5": _hdf5,
    "webdataset": _webdataset,
    "litdata": _litdata,
    "datasets": _datasets,
    "limit": _limit,
}
