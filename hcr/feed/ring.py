"""Batches handed between processes through shared memory that is allocated once.

A tensor sent through a queue costs more than reading its pictures: shared memory is made, filled page by page, passed
and thrown away for each. Here a worker fills a slot of a ring, and only the slot's number travels. The price is to keep
account of which slots are still in use.
"""

from __future__ import annotations

import atexit
import mmap
import tempfile
import weakref
from collections import deque
from multiprocessing.sharedctypes import RawArray, RawValue
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hcr.errors import HcrError
from hcr.files import free_bytes


class Ring:
    """`slots` slots, each for one batch of up to `rows` pictures; a worker gets the ring when it is started.

    Raises: HcrError where there is no room for it.
    """

    def __init__(self, slots: int, rows: int, size: int) -> None:
        self._shape = (slots, rows, 1, size, size)
        self._bytes = -(-slots * rows * size * size // mmap.PAGESIZE) * mmap.PAGESIZE
        _require_room(self._bytes)
        # Whole pages of its own: CUDA locks pages, and locks none twice.
        self._memory = RawArray("B", self._bytes + mmap.PAGESIZE)
        self._start = -np.frombuffer(self._memory, np.uint8).ctypes.data % mmap.PAGESIZE
        self._free = deque(range(slots))
        self._pinned = False
        self._closed = RawValue("b", 0)
        # Closed when it is dropped: workers that outlive it end with the process at the latest.
        weakref.finalize(self, setattr, self._closed, "value", 1)
        _rings.add(self)

    def _slots(self) -> np.ndarray:
        count = int(np.prod(self._shape))
        return np.frombuffer(self._memory, np.uint8, count, self._start).reshape(self._shape)

    def close(self) -> None:
        """Let workers end when a signal asks for it; until then they leave such signals to their parent."""
        self._closed.value = 1

    @property
    def closed(self) -> bool:
        """Whether the parent has closed it, or is ending."""
        return bool(self._closed.value)

    def take(self) -> int | None:
        """Return the number of a free slot, or None where every slot is under way or in use."""
        return self._free.popleft() if self._free else None

    def put_back(self, slot: int) -> None:
        """Free a slot that was taken and not lent."""
        self._free.append(slot)

    def slot(self, number: int, rows: int) -> Tensor:
        """Return uint8[rows, 1, S, S] to write into, in a worker."""
        return torch.from_numpy(self._slots()[number, :rows])

    def lend(self, number: int, rows: int) -> Tensor:
        """Return uint8[rows, 1, S, S] to read; the slot is free again when no tensor on that storage is left."""
        array = self._slots()[number, :rows]
        # The tensor's storage keeps this one array alive, and every view of the tensor keeps the storage.
        weakref.finalize(array, self._free.append, number).atexit = False
        return torch.from_numpy(array)

    def pin(self) -> None:
        """Lock its pages, so that CUDA can copy from it while the CPU works on. Raises: HcrError where that fails.

        Call it when the workers run, so that they inherit unlocked pages.
        """
        if self._pinned:
            return
        runtime, address = torch.cuda.cudart(), self._slots().ctypes.data
        error = int(runtime.cudaHostRegister(address, self._bytes, 0))
        if error:
            raise HcrError(
                f"CUDA cannot lock {self._bytes:,} bytes of shared memory (error {error}): "
                "make room in /dev/shm (containers: --shm-size), or use --workers 0"
            )
        weakref.finalize(self._memory, runtime.cudaHostUnregister, address).atexit = False
        self._pinned = True


_rings: weakref.WeakSet[Ring] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # An iterator that is still held at the end of the process leaves its workers to multiprocessing, which sends
    # SIGTERM and waits for them. This runs before that, since it was registered later.
    for ring in _rings:
        ring.close()


def free_shared_memory() -> dict[Path, int]:
    """Return the free bytes of each place of multiprocessing's memory: /dev/shm, else the temporary folder."""
    folders = [folder for folder in (Path("/dev/shm"), Path(tempfile.gettempdir())) if folder.is_dir()]
    return {folder: free_bytes(folder) for folder in folders}


def _require_room(needed: int) -> None:
    """Refuse a ring that would end the process by SIGBUS. Raises: HcrError."""
    free = free_shared_memory()
    if max(free.values()) < 2 * needed:
        found = ", ".join(f"{folder} {room:,}" for folder, room in free.items())
        raise HcrError(
            f"shared memory for batches: {needed:,} bytes and as many to spare, found {found} free: "
            "make room (containers: --shm-size), or use fewer --workers or a smaller --batch-size"
        )
