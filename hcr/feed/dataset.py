"""A pack as a map-style dataset, for other people's training loops."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from hcr.charset import Charset
from hcr.errors import UsageError
from hcr.pack.store import PackReader, open_reader

Target = Literal["character", "label"]


class PackDataset(torch.utils.data.Dataset[tuple[np.ndarray, str | int]]):
    """One split of a pack; `hcr.open_pack` makes it.

    A torch `Dataset`: `DataLoader(pack, batch_size=64, shuffle=True, num_workers=2)` gives uint8[B, S, S] and what
    `target` says. It can be sent to other processes, each of which opens the file for itself.

    folder, split: where it lies. charset: the characters that labels stand for. size: pixels a side, S.
    labels: uint16[N], in the order of the pictures.

    Example:
        pack = hcr.open_pack("data/packed/hwdb1.1-64", split="test")
        picture, character = pack[0]
        print(len(pack), pack.size, picture.shape, picture.dtype, character)
    """

    def __init__(self, folder: Path, split: str, target: Target) -> None:
        if target not in ("character", "label"):
            raise UsageError(f"target {target!r}: expected 'character' or 'label'")
        self.folder, self.split, self.target = folder, split, target
        self.charset: Charset = self._reader.charset
        self.size: int = self._reader.size
        self.labels: np.ndarray = self._reader.labels

    @property
    def _reader(self) -> PackReader:
        return open_reader(self.folder / f"{self.split}.lmdb")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str | int]:
        """Return the picture uint8[S, S] (255 = paper) at `index`, and its character or integer label.

        Raises: IndexError beyond the end; DataError for a damaged block.
        """
        place = range(len(self))[index]
        picture = np.empty((1, self.size, self.size), np.uint8)
        self._reader.pictures(np.array([place]), picture)
        label = int(self.labels[place])
        return picture[0], label if self.target == "label" else self.charset[label]
