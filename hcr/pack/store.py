"""The pack's format: one LMDB file a split, blocks of uncompressed grey pictures, each block with its checksum.

A block of 64 pictures costs 64 bytes a picture more than its pixels, where a picture a value costs a second page; and
LMDB itself has no checksums, so a CRC32 ends every block. Larger blocks would save little, and the first batches of a
shuffled epoch read as many whole blocks as they have pictures. The price is that nothing can be changed in place.

Keys (integers little-endian; docs/formats.md says more):
    meta              JSON, written last: without it there is no pack
    labels, writers   uint16[N]
    block/00000000 …  uint8[n, S, S] with n = 64 but in the last block, then uint32 CRC32 of those bytes
    origin/00000000 … UTF-8, a line a picture: "file:offset"
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict

import lmdb
import numpy as np

from hcr.charset import Charset
from hcr.errors import DataError, HcrError
from hcr.layout import no_pack, splits_of
from hcr.preprocess.fit import PREPROCESSING, is_compatible
from hcr.text import counted

FORMAT = "hcr-pack"
VERSION = 1
_AGAIN = "delete the pack and make it again with hcr-data pack"
# Address space that a transaction has for what it adds.
_ROOM = 1 << 30


class Source(TypedDict):
    """One partition of the corpus, as the split's meta records it: docs/formats.md says what the keys mean."""

    name: str
    bytes: int
    sha256: str
    samples: int


class PackSettings(TypedDict):
    """What a second pack is compared by: the settings, and a digest of the names and sizes of all sources.

    characters: digest of the charset to keep, or "all".
    units: number of partitions of the corpus.
    """

    corpus: str
    size: int
    characters: str
    fixed: bool
    val: float
    seed: int
    skip_damaged: bool
    units: int
    names_and_sizes: str


class PackContent(TypedDict):
    """What the packer knows of a finished split: the part of its meta that `PackWriter.finish` is given."""

    split: str
    characters: str
    charset_digest: str
    writers: list[str]
    validation: str
    sources: list[Source]
    settings: PackSettings
    left_out: dict[str, int]


class PackMeta(PackContent):
    """The meta of a finished split: docs/formats.md says what the keys mean."""

    format: str
    version: int
    size: int
    count: int
    block: int
    digest: str
    preprocessing: dict[str, object]


class WriteError(HcrError):
    """A pack cannot be written: the disk is full, or another limit is reached."""


class WritableFile:
    """An LMDB file that is being written: one transaction, committed when told, and on disk then.

    What the file holds already is kept. No lock file is used: whoever writes holds a lock of its own.
    Raises: DataError where the file is no whole LMDB file; WriteError where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._transaction: lmdb.Transaction | None = None
        try:
            self._env = lmdb.open(str(path), subdir=False, map_size=_ROOM, lock=False, readahead=False)
        except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError) as error:
            raise DataError(str(error)) from None
        except lmdb.DiskError as error:
            raise WriteError(f"{error}: disk full; make room and run the same command again") from None
        except lmdb.Error as error:
            raise WriteError(str(error)) from None
        try:
            _check_length(self._env, path)
        except BaseException:
            self._env.close()
            raise

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, also one that is not committed yet."""
        with self._transacting() as transaction:
            value = transaction.get(key)
        return None if value is None else bytes(value)

    def put(self, key: bytes, value: bytes | memoryview) -> None:
        """Set the value of `key`; `value` is copied."""
        with self._transacting() as transaction:
            transaction.put(key, value)

    def delete(self, key: bytes) -> bool:
        """Remove `key`; return whether it existed."""
        with self._transacting() as transaction:
            existed: bool = transaction.delete(key)
        return existed

    @contextmanager
    def _transacting(self) -> Iterator[lmdb.Transaction]:
        try:
            if self._transaction is None:
                # The map is address space, not disk; it can only grow between transactions.
                used = self._env.info()["last_pgno"] * self._env.stat()["psize"]
                if used + _ROOM // 2 > self._env.info()["map_size"]:
                    self._env.set_mapsize(used + _ROOM)
                self._transaction = self._env.begin(write=True)
            yield self._transaction
        except lmdb.Error as error:
            raise WriteError(f"{self.path}: {error}") from None

    def commit(self) -> None:
        """End the transaction: all of it is on disk, or, where this raises WriteError, nothing."""
        transaction, self._transaction = self._transaction, None
        try:
            if transaction is not None:
                transaction.commit()
        except lmdb.Error as error:
            raise WriteError(f"{self.path}: {error}") from None

    def close(self) -> None:
        """Close the file; what was not committed is lost."""
        if self._transaction is not None:
            self._transaction.abort()
        self._env.close()


class PackReader:
    """Read one split; `open_reader` makes it.

    labels, writers: uint16[N].
    meta: the JSON object.
    charset: the characters that labels stand for.
    Raises: DataError where the file is no pack, is cut short, or is of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._env = lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, readahead=False, meminit=False, max_spare_txns=4
            )
        except lmdb.Error as error:
            raise DataError(f"{path}: not a pack ({error}); {_AGAIN}") from None
        try:
            _check_length(self._env, path)
            self._transaction = self._env.begin(buffers=True)
            self._read_arrays()
        except BaseException:
            self._env.close()
            raise

    def _read_arrays(self) -> None:
        self.meta = self._read_meta()
        self.size, self.block_size = int(self.meta["size"]), int(self.meta["block"])
        self.charset = Charset(self.meta["characters"])
        self.labels = self._array(b"labels")
        self.writers = self._array(b"writers")
        self.digest: str = self.meta["digest"]
        # Not the views themselves: small objects that stay keep the allocator from reusing the room of batches.
        self._checked = bytearray(-(-len(self) // self.block_size))

    def _read_meta(self) -> PackMeta:
        raw = self._get(b"meta")
        try:
            found: Any = json.loads(bytes(raw)) if raw is not None else {}
        except ValueError as error:
            raise DataError(f"{self.path}: key meta is damaged ({error}); {_AGAIN}") from None
        kind = found.get("format") if isinstance(found, dict) else None
        if kind != FORMAT:
            raise DataError(f"{self.path}: key meta: expected format {FORMAT!r}, found {kind!r}; {_AGAIN}")
        meta: PackMeta = found
        if meta["version"] != VERSION:
            raise DataError(f"{self.path}: pack version {meta['version']}, expected {VERSION}; {_AGAIN}")
        if not is_compatible(meta["preprocessing"]):
            raise DataError(
                f"{self.path}: pictures prepared by {meta['preprocessing']}, "
                f"this program prepares by {PREPROCESSING}; {_AGAIN}"
            )
        return meta

    def _get(self, key: bytes) -> memoryview | None:
        try:
            value: memoryview | None = self._transaction.get(key)
        except lmdb.Error as error:
            raise DataError(
                f"{self.path}: key {key.decode()}: not readable ({error}); hcr-data verify says more"
            ) from None
        return value

    def _array(self, key: bytes) -> np.ndarray:
        raw = self._get(key)
        found, expected = 0 if raw is None else len(raw), 2 * self.meta["count"]
        if raw is None or found != expected:
            raise DataError(f"{self.path}: key {key.decode()}: {found} bytes, expected {expected}; {_AGAIN}")
        return np.frombuffer(bytes(raw), "<u2")

    def __len__(self) -> int:
        return int(self.meta["count"])

    def block(self, number: int) -> np.ndarray:
        """Return block `number` as a read-only view uint8[n, S, S], checked against its CRC32 the first time.

        Raises: DataError naming the block, for a wrong checksum or length.
        """
        key = block_key(number)
        count = min(self.block_size, len(self) - number * self.block_size)
        expected = count * self.size * self.size
        raw = self._get(key)
        if raw is None or len(raw) != expected + 4:
            found = "nothing" if raw is None else f"{len(raw)} bytes"
            raise DataError(f"{self.path}: key {key.decode()}: {found}, expected {expected + 4} bytes; {_AGAIN}")
        if not self._checked[number]:
            found_checksum, checksum = zlib.crc32(raw[:expected]), int.from_bytes(raw[expected:], "little")
            if found_checksum != checksum:
                wrong = f"CRC32 {found_checksum:08x}, expected {checksum:08x}: damaged"
                raise DataError(f"{self.path}: key {key.decode()}: {wrong}; {_AGAIN}")
            self._checked[number] = 1
        return np.frombuffer(raw, np.uint8, expected).reshape(count, self.size, self.size)

    def touch(self, numbers: Sequence[int]) -> None:
        """Bring blocks into memory, as several threads may at once: py-lmdb touches the pages without the GIL."""
        with suppress(lmdb.Error), self._env.begin(buffers=True) as transaction:
            for number in numbers:
                transaction.get(block_key(number))

    def pictures(self, indices: np.ndarray, out: np.ndarray) -> None:
        """Copy the pictures at `indices` int64[B] into `out` uint8[B, S, S], in their order."""
        numbers, places = np.divmod(indices, self.block_size)
        for slot, (number, place) in enumerate(zip(numbers.tolist(), places.tolist(), strict=True)):
            out[slot] = self.block(number)[place]

    def origins(self, indices: Sequence[int]) -> list[str]:
        """Return "file:offset" of each sample. Raises: DataError where that block of origins is damaged."""
        lines: dict[int, list[str]] = {}
        for number in {index // self.block_size for index in indices}:
            raw = self._get(origin_key(number))
            lines[number] = [] if raw is None else bytes(raw).decode("utf-8", "replace").split("\n")
            expected = min(self.block_size, len(self) - number * self.block_size)
            if len(lines[number]) != expected:
                raise DataError(
                    f"{self.path}: key {origin_key(number).decode()}: {counted(len(lines[number]), 'line')}, "
                    f"expected {expected}"
                )
        return [lines[index // self.block_size][index % self.block_size] for index in indices]

    @property
    def block_count(self) -> int:
        """The number of blocks, the last of which may be short."""
        return len(self._checked)

    def close(self) -> None:
        """Close the file; views of blocks must not be used after."""
        self._checked = bytearray()
        self._transaction.abort()
        self._env.close()


_open: dict[Path, tuple[tuple[int, int, int], PackReader]] = {}
_owner = os.getpid()


def open_reader(path: Path) -> PackReader:
    """Open a split, or return the reader that this process already has: py-lmdb refuses to open a path twice.

    A forked process gets readers of its own. A file that was replaced since is opened again, and its old reader closed.
    Raises: DataError as `PackReader` does.
    """
    global _owner
    if _owner != os.getpid():
        # Forked: the parent's environments are of no use here, and while they are open py-lmdb refuses others.
        _owner = os.getpid()
        close_packs()
    if not path.is_file():
        splits = splits_of(path.parent)
        raise DataError(f"{path}: no such split; there is {', '.join(splits)}") if splits else no_pack(path.parent)
    key, status = path.resolve(), path.stat()
    stamp = status.st_ino, status.st_size, status.st_mtime_ns
    if key in _open and _open[key][0] != stamp:
        _open.pop(key)[1].close()
    if key not in _open:
        _open[key] = stamp, PackReader(path)
    return _open[key][1]


def close_packs() -> None:
    """Close every reader that `open_reader` returned in this process."""
    while _open:
        _open.popitem()[1][1].close()


def _check_length(env: lmdb.Environment, path: Path) -> None:
    # Reading a page beyond the end of the file would kill the process with SIGBUS.
    expected = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    found = path.stat().st_size
    if found < expected:
        raise DataError(f"{path}: cut short: {found} bytes, expected {expected}; {_AGAIN}")


def block_key(number: int) -> bytes:
    """Return the key of block `number`."""
    return b"block/%08d" % number


def origin_key(number: int) -> bytes:
    """Return the key of the origins of block `number`."""
    return b"origin/%08d" % number
