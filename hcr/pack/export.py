"""A pack in formats that other programs read: HDF5, numpy arrays, PNG folders, GNT (docs/formats.md).

Blocks are written one by one, so memory stays flat. An export has a temporary name until it is complete, so it is
whole or absent. Pictures are written as they are packed. Only HDF5 has room for all that a pack knows of a sample, so
arrays and PNG folders come with a table.
"""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hcr.corpus.gnt import encode_record
from hcr.corpus.hdf5 import load_h5py
from hcr.errors import DataError, HcrError, UsageError
from hcr.files import sync_folder
from hcr.layout import find_pack, splits_of
from hcr.pack.store import PackReader, open_reader
from hcr.preprocess.fit import PREPROCESSING
from hcr.stop import Progress, silent

# Names of the groups in HDF5 copies of CASIA-HWDB.
_GROUPS = {"train": "trn", "val": "vld", "test": "tst"}
UNNAMED = "unnamed"
"""The GNT file of samples whose writer is not known."""

Step = Callable[[int], None]


def export(pack: Path, out: Path, to: str, splits: Sequence[str] = (), progress: Progress = silent) -> dict[str, int]:
    """Write the named splits of a pack (none named: all) to `out`, as "hdf5", "npy", "png" or "gnt".

    Returns the number of samples a split; `progress` counts them.
    Raises: UsageError where `out` exists or the pack lacks a split; DataError for damage in the pack and for what GNT
    cannot hold; HcrError where `out` cannot be written or h5py is missing.
    """
    available = splits_of(find_pack(pack))
    for split in splits:
        if split not in available:
            raise UsageError(f"{pack}: no split {split!r}; it has {', '.join(available)}")
    if out.exists():
        raise UsageError(f"{out}: exists already; name another --out, or remove it")
    readers = {split: open_reader(pack / f"{split}.lmdb") for split in available if split in splits or not splits}
    first = next(iter(readers.values()))
    for reader in readers.values():
        reader.charset.require_same(first.charset, str(reader.path), str(first.path))
        if (reader.labels >= len(reader.charset)).any() or (reader.writers >= len(reader.meta["writers"])).any():
            raise DataError(f"{reader.path}: labels or writers are damaged; hcr-data verify says more")
    total = sum(len(reader) for reader in readers.values())
    work = out.with_name(f".{out.name}.tmp")
    _remove(work)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        FORMATS[to](readers, work, lambda count: progress(count, total))
        os.replace(work, out)
    except OSError as error:
        raise HcrError(
            f"{out}: cannot be written ({error.strerror or error}); make room, or name another --out"
        ) from None
    finally:
        _remove(work)
    sync_folder(out.parent)
    return {split: len(reader) for split, reader in readers.items()}


def _to_hdf5(readers: Mapping[str, PackReader], out: Path, step: Step) -> None:
    """Write one HDF5 file. Its arrays are contiguous, not chunked or compressed: one picture costs one picture."""
    h5py = load_h5py()
    text = h5py.string_dtype()
    charset = next(iter(readers.values())).charset
    with _Sink(out, "w+b") as sink, h5py.File(sink, "w") as file:
        file.attrs["characters"] = charset.characters
        file.attrs["charset_digest"] = charset.digest
        file.attrs["preprocessing"] = json.dumps(PREPROCESSING)
        for split, reader in readers.items():
            group = file.create_group(_GROUPS[split])
            group.attrs["pack"] = reader.digest
            pictures = group.create_dataset("x", (len(reader), 1, reader.size, reader.size), np.uint8)
            group["y"] = reader.labels.astype(np.int64)
            group["writer"] = reader.writers
            group.create_dataset("writers", data=reader.meta["writers"], dtype=text)
            origins = group.create_dataset("origin", (len(reader),), text)
            for start, block in _blocks(reader, step):
                pictures[start : start + len(block), 0] = block
                origins[start : start + len(block)] = reader.origins(range(start, start + len(block)))
                sink.check()
        file.close()
        sink.check()


class _Sink(FileIO):
    """A file that keeps the failure of a write, ignores later writes, and raises the failure in `check`.

    HDF5 writes once more when it closes a file, and if that fails it cannot be closed at all.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data`, or keep the failure."""
        rest = memoryview(data).cast("B")
        while rest and self.failure is None:
            try:
                rest = rest[super().write(rest) :]
            except OSError as error:
                self.failure = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the length, or keep the failure."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = error
            return size or 0

    def check(self) -> None:
        """Raise the failure, if there was one."""
        if self.failure is not None:
            raise self.failure


def _to_npy(readers: Mapping[str, PackReader], out: Path, step: Step) -> None:
    """Write a folder of arrays: of each split the pictures, the labels and a table."""
    out.mkdir()
    for split, reader in readers.items():
        reader.charset.write(out / "characters.txt")
        np.save(out / f"{split}-y.npy", reader.labels.astype(np.int64))
        _write_table(reader, out / f"{split}.csv")
        # Not a memory map: on a full disk that ends in SIGBUS instead of an error.
        with open(out / f"{split}-x.npy", "wb") as file:
            shape = (len(reader), 1, reader.size, reader.size)
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for _, block in _blocks(reader, step):
                file.write(block.data)


def _to_png(readers: Mapping[str, PackReader], out: Path, step: Step) -> None:
    """Write class folders named by their labels, since some characters (/ and .) cannot name a folder."""
    out.mkdir()
    for split, reader in readers.items():
        # The tutorial's file of this name is a pickle of this protocol. Writing one is safe; reading is not.
        labels = {char: label for label, char in enumerate(reader.charset.characters)}
        (out / "char_dict").write_bytes(pickle.dumps(labels, protocol=0))
        _write_table(reader, out / f"{split}.csv")
        for label in np.unique(reader.labels).tolist():
            (out / split / f"{label:05d}").mkdir(parents=True)
        for start, block in _blocks(reader, step):
            labelled = zip(reader.labels[start : start + len(block)].tolist(), block, strict=True)
            for index, (label, picture) in enumerate(labelled, start):
                Image.fromarray(picture).save(out / split / f"{label:05d}" / f"{index:07d}.png")


def _to_gnt(readers: Mapping[str, PackReader], out: Path, step: Step) -> None:
    """Write a GNT file a writer, below a folder a split."""
    for split, reader in readers.items():
        for char in reader.charset.characters:
            encode_record(char, np.zeros((1, 1), np.uint8))
        names = [_file_name(writer, reader) for writer in reader.meta["writers"]]
        (out / split).mkdir(parents=True)
        for start, block in _blocks(reader, step):
            labels, writers = (array[start : start + len(block)] for array in (reader.labels, reader.writers))
            # A pack keeps the order of its sources, so runs of one writer are long; no file stays open between them.
            for first, last in pairwise([0, *(np.flatnonzero(np.diff(writers)) + 1).tolist(), len(block)]):
                with open(out / split / f"{names[writers[first]]}.gnt", "ab") as file:
                    for label, picture in zip(labels[first:last].tolist(), block[first:last], strict=True):
                        file.write(encode_record(reader.charset[label], picture))


def _file_name(writer: str, reader: PackReader) -> str:
    """Return the name of a writer's GNT file. Raises: DataError where no file can have it."""
    if writer.startswith(".") or "/" in writer or "\\" in writer or "\0" in writer:
        raise DataError(f"{reader.path}: writer {writer!r} cannot name a GNT file; export to hdf5, npy or png instead")
    return writer or UNNAMED


def _blocks(reader: PackReader, step: Step) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each block's first index and its pictures uint8[n, S, S]."""
    for number in range(reader.block_count):
        block = reader.block(number)
        yield number * reader.block_size, block
        step(len(block))


def _write_table(reader: PackReader, path: Path) -> None:
    """Write a line a sample in the pack's order, as UTF-8 with a byte order mark, which Excel needs."""
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["label", "char", "writer", "origin"])
        for start in range(0, len(reader), reader.block_size):
            stop = min(start + reader.block_size, len(reader))
            labels, writers = reader.labels[start:stop].tolist(), reader.writers[start:stop].tolist()
            for label, writer, origin in zip(labels, writers, reader.origins(range(start, stop)), strict=True):
                table.writerow([label, reader.charset[label], reader.meta["writers"][writer], origin])


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


FORMATS: dict[str, Callable[[Mapping[str, PackReader], Path, Step], None]] = {
    "hdf5": _to_hdf5,
    "npy": _to_npy,
    "png": _to_png,
    "gnt": _to_gnt,
}
"""What `export` can write, by name."""
