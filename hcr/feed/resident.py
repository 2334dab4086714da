"""A whole split as one uint8 tensor, in memory or on the device.

Nothing is faster, and nothing costs more memory: N · S · S bytes, which for 900,000 pictures of 64 px is 3.7 GB.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hcr.errors import HcrError
from hcr.feed.gather import pictures_of
from hcr.pack.store import PackReader, open_pack

_ROWS = 4096


def resident_bytes(reader: PackReader) -> int:
    """Count the bytes that a split's pictures take."""
    return len(reader) * reader.size * reader.size


def load_resident(path: Path, device: str) -> Tensor:
    """Read every picture of a split: uint8[N, 1, S, S] on `device`.

    Raises: HcrError, before anything is taken, where memory is clearly short; DataError for a damaged block.
    """
    reader = open_pack(path)
    wanted, free = resident_bytes(reader), _free_bytes(device)
    if free is not None and wanted > free:
        where = "in memory" if device == "cpu" else f"on {device}"
        raise HcrError(f"{path}: {wanted:,} bytes of pictures, found {free:,} free {where}: use --cache none")
    pictures, shape = pictures_of(path), (1, reader.size, reader.size)
    whole = torch.empty((len(reader), *shape), dtype=torch.uint8, device=device)
    for start in range(0, len(reader), _ROWS):
        index = np.arange(start, min(start + _ROWS, len(reader)))
        rows = whole[start : start + len(index)]
        if whole.is_cpu:
            # Straight into its place: memory that a copy went through would not go back to the system.
            pictures.read(index, rows)
        else:
            part = torch.empty((len(index), *shape), dtype=torch.uint8)
            pictures.read(index, part)
            rows.copy_(part)
    return whole


def _free_bytes(device: str) -> int | None:
    """How many bytes can be had; None where the system does not say."""
    if device != "cpu":
        return torch.cuda.mem_get_info()[0]
    found = []
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text("utf-8").splitlines())
        found.append(int(fields["MemAvailable"].split()[0]) * 1024)
        # A container's limit; files that it holds in the page cache give way.
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text("utf-8"))
        cached = dict(line.split() for line in (group / "memory.stat").read_text("utf-8").splitlines())["file"]
        found.append(int((group / "memory.max").read_text("utf-8")) - used + int(cached))
    except (OSError, KeyError, ValueError):
        pass  # not Linux, no container, or no limit ("max")
    return min(found, default=None)
