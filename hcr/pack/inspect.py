"""Look into a pack without training on it: what it holds, whether it is whole, what it looks like."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TypedDict

import numpy as np

from hcr.errors import DataError, UsageError
from hcr.layout import find_pack, splits_of
from hcr.pack.store import PackMeta, PackReader, open_reader
from hcr.pack.writer import digest_of
from hcr.stop import Progress, silent
from hcr.text import counted


class SplitInfo(TypedDict):
    """What a split holds.

    samples: their number.
    characters: the number of its charset's characters.
    occurring: the number of those that have a sample.
    writers: the number of writers with a name.
    bytes: of its file.
    meta: see docs/formats.md.
    """

    samples: int
    characters: int
    occurring: int
    writers: int
    bytes: int
    meta: PackMeta


def info(pack: Path) -> dict[str, SplitInfo]:
    """Return what each split of a pack holds.

    Raises: DataError where there is no pack, or a split is damaged.
    """
    found: dict[str, SplitInfo] = {}
    for split in splits_of(find_pack(pack)):
        reader = open_reader(pack / f"{split}.lmdb")
        found[split] = {
            "samples": len(reader),
            "characters": len(reader.charset),
            "occurring": len(np.unique(reader.labels)),
            "writers": sum(1 for name in reader.meta["writers"] if name),
            "bytes": reader.path.stat().st_size,
            "meta": reader.meta,
        }
    return found


def verify(pack: Path, progress: Progress = silent) -> list[str]:
    """Check every block's CRC32 and size, every label, writer and origin, and that the splits agree.

    Returns one line for each thing that is wrong; `progress` counts blocks.
    Raises: DataError where there is no pack at all.
    """
    problems: list[str] = []
    digests: dict[str, str] = {}
    for split in splits_of(find_pack(pack)):
        try:
            reader = open_reader(pack / f"{split}.lmdb")
            digests[reader.charset.digest] = split
            problems += _problems(reader, progress)
        except DataError as error:
            problems.append(str(error))
    if len(digests) > 1:
        listed = ", ".join(f"{split} {digest}" for digest, split in digests.items())
        problems.append(f"{pack}: its splits have different charsets ({listed})")
    return problems


def _problems(reader: PackReader, progress: Progress) -> list[str]:
    problems = []
    for key, values, count in (
        ("labels", reader.labels, len(reader.charset)),
        ("writers", reader.writers, len(reader.meta["writers"])),
    ):
        wrong = np.flatnonzero(values >= count)
        if wrong.size:
            problems.append(
                f"{reader.path}: key {key}: {wrong.size} of {len(reader)} are not below {count}, "
                f"the first at sample {wrong[0]} ({values[wrong[0]]})"
            )
    checksums = []
    for number in range(reader.block_count):
        try:
            checksums.append(zlib.crc32(reader.block(number).data).to_bytes(4, "little"))
            reader.origins([number * reader.block_size])
        except DataError as error:
            problems.append(str(error))
        progress(1, reader.block_count)
    recorded = sum(source["samples"] for source in reader.meta["sources"])
    if recorded != len(reader):
        problems.append(f"{reader.path}: key meta: sources count {counted(recorded, 'sample')}, expected {len(reader)}")
    found = digest_of(checksums, reader.labels, reader.writers, reader.meta["characters"])
    if not problems and found != reader.digest:
        # Labels and writers have no checksum of their own.
        problems.append(f"{reader.path}: digest {found}, expected {reader.digest}: labels or writers are damaged")
    return problems


def contact_sheet(
    pack: Path, split: str, *, char: str | None = None, writer: str | None = None, count: int = 256, columns: int = 16
) -> np.ndarray:
    """Return a sheet uint8[H, W] of up to `count` pictures: of one character, of one writer, or spread over the split.

    Raises: DataError or UsageError where there is no such split, character or writer.
    """
    available = splits_of(find_pack(pack))
    if split not in available:
        raise UsageError(f"{pack}: no split {split!r}; it has {', '.join(available)}")
    if char is not None and len(char) != 1:
        raise UsageError(f"--char {char!r}: expected one character")
    reader = open_reader(pack / f"{split}.lmdb")
    chosen = np.ones(len(reader), bool)
    if char is not None:
        chosen &= reader.labels == reader.charset.label(char)
    if writer is not None:
        names = reader.meta["writers"]
        if writer not in names:
            raise UsageError(f"{reader.path}: no writer {writer!r}; there are {len(names)}, e.g. {names[0]!r}")
        chosen &= reader.writers == names.index(writer)
    indices = np.flatnonzero(chosen)
    if indices.size > count:
        indices = indices[np.linspace(0, indices.size - 1, count).astype(np.int64)]
    if not indices.size:
        raise UsageError(f"{reader.path}: no sample of that character by that writer")
    size, gap = reader.size, 2
    rows = -(-indices.size // columns)
    sheet = np.full((rows * (size + gap) + gap, columns * (size + gap) + gap), 200, np.uint8)
    pictures = np.empty((indices.size, size, size), np.uint8)
    reader.pictures(indices, pictures)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        top, left = gap + row * (size + gap), gap + column * (size + gap)
        sheet[top : top + size, left : left + size] = picture
    return sheet
