"""A pack's pictures as rows of one tensor that takes no memory: LMDB's own memory map.

A loop over pictures costs more than copying their bytes. Here a window of one picture's length begins at every byte of
the map, and one `index_select` over those overlapping windows gathers a batch, as fast as from an array in memory. The
price is a tensor made from an address: it is read only where a block was found and its checksum was right.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hcr.errors import DataError
from hcr.pack.store import PackReader, open_reader

# Threads that wait for the disk at once.
THREADS = 16


class Pictures:
    """The pictures of one open split, for the process that opened it; `pictures_of` returns it."""

    def __init__(self, reader: PackReader) -> None:
        self.reader = reader
        # The place of block 0 in the file is not known, but no block is further from it than the file is long.
        reach = reader.path.stat().st_size
        self._base = reader.block(0).ctypes.data - reach
        self._pixels = reader.size * reader.size
        # Never read as a whole: most of it may not be memory at all.
        span = np.ctypeslib.as_array((ctypes.c_uint8 * (2 * reach)).from_address(self._base))
        self._windows = torch.from_numpy(span).as_strided((2 * reach - self._pixels + 1, self._pixels), (1, 1))
        self._starts = np.full(reader.block_count, -1, np.int64)  # -1: not yet checked

    def read(self, index: np.ndarray, out: Tensor) -> None:
        """Copy the pictures at `index` int64[B] into the contiguous `out` uint8[B, 1, S, S], in their order.

        Raises: DataError for a damaged block, checked when it is first read, and for a pack that was closed, which
        happens when it is replaced and opened again; IndexError outside the pack.
        """
        if not self.reader.block_count:
            raise DataError(f"{self.reader.path}: was replaced by another pack while it was read; start again")
        numbers, places = np.divmod(index, self.reader.block_size)
        if len(index) and not 0 <= index.min() <= index.max() < len(self.reader):
            raise IndexError(f"{self.reader.path}: no sample {index.max()} or {index.min()} among {len(self.reader)}")
        starts = self._starts[numbers]
        if starts.min(initial=0) < 0:
            new = np.unique(numbers[starts < 0]).tolist()
            self._read_ahead(new)
            for number in new:
                self._starts[number] = self.reader.block(number).ctypes.data - self._base
            starts = self._starts[numbers]
        rows = torch.from_numpy(starts + places * self._pixels)
        torch.index_select(self._windows, 0, rows, out=out.view(len(index), self._pixels))

    def _read_ahead(self, numbers: list[int]) -> None:
        """Let threads wait for the disk: one page fault after the other, a batch's blocks took four times as long."""
        if len(numbers) > THREADS:
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(self.reader.touch, (numbers[first::THREADS] for first in range(THREADS))))


_known: dict[Path, Pictures] = {}


def pictures_of(path: Path) -> Pictures:
    """Return the pictures of a split as this process has it open. Raises: DataError as `open_reader` does."""
    reader = open_reader(path)
    known = _known.get(path)
    if known is None or known.reader is not reader:
        known = _known[path] = Pictures(reader)
    return known
