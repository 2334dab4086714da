"""One split of one pack, written block by block into a temporary file that another run can resume.

At every commit the unfinished block is written too, with all that the pack must remember. So one transaction holds
everything up to a place in the source. That costs one more block of writing a commit; the room that it frees is used
again.

Keys beside the format's own, gone when the file is finished:
    state            the packer's, as it passes it in
    state/00000000 … of the block of that number: its CRC32, then uint16[n] characters' and uint16[n] writers' numbers
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hcr.errors import DataError
from hcr.files import short_digest
from hcr.pack.config import BLOCK
from hcr.pack.store import FORMAT, VERSION, PackContent, PackMeta, WritableFile, block_key, origin_key
from hcr.preprocess.fit import PREPROCESSING


class PackWriter:
    """Write one split.

    stored: the state of the last commit, None in a new file and in a finished one.
    meta: None until the split is finished.
    Memory: one block of pictures, and what is not committed yet.
    Raises: DataError where the file exists and is damaged, WriteError where it cannot be written.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size, self.count = path, size, 0
        self._file = WritableFile(path)
        self._block = bytearray(BLOCK * size * size + 4)
        self._squares = np.frombuffer(self._block, np.uint8, BLOCK * size * size).reshape(BLOCK, size, size)
        self._numbers = np.zeros((2, BLOCK), "<u2")
        self._origins: list[str] = []
        self._committed = 0
        self.stored = self._file.get(b"state")
        meta = self._file.get(b"meta")
        self.meta: PackMeta | None = None if meta is None else json.loads(meta)

    @property
    def uncommitted(self) -> int:
        """Bytes of pictures that the next commit writes."""
        return (self.count - self._committed) * self.size * self.size

    def rewind(self, count: int) -> None:
        """Keep the first `count` samples, of at least so many, and forget what follows them."""
        number, rest = divmod(count, BLOCK)
        self.count, self._committed, self._origins = count, count, []
        if rest:
            self._block[:] = self._value(block_key(number))
            for row, kept in enumerate(np.frombuffer(self._value(_state_key(number))[4:], "<u2").reshape(2, -1)):
                self._numbers[row, :rest] = kept[:rest]
            self._origins = self._value(origin_key(number)).decode("utf-8", "surrogateescape").split("\n")[:rest]
            number += 1
        while self._file.delete(block_key(number)):
            self._file.delete(origin_key(number))
            self._file.delete(_state_key(number))
            number += 1

    def _value(self, key: bytes) -> bytes:
        value = self._file.get(key)
        if value is None:
            raise DataError(f"{self.path}: key {key.decode()}: nothing; remove the folder and pack again")
        return value

    def add(self, squares: np.ndarray, numbers: np.ndarray, writers: np.ndarray, origins: list[str]) -> None:
        """Append squares uint8[n, S, S], the numbers uint16[n] of their characters and writers, and their origins."""
        done = 0
        while done < len(squares):
            start = self.count % BLOCK
            until = min(done + BLOCK - start, len(squares))
            stop = start + until - done
            self._squares[start:stop] = squares[done:until]
            self._numbers[0, start:stop] = numbers[done:until]
            self._numbers[1, start:stop] = writers[done:until]
            self._origins += origins[done:until]
            self.count, done = self.count + until - done, until
            if self.count % BLOCK == 0:
                self._put_block(BLOCK, len(self._block) - 4)
                self._origins = []

    def _put_block(self, samples: int, length: int) -> None:
        """Write the last `samples` added as a block whose first `length` bytes count."""
        number, block = (self.count - samples) // BLOCK, memoryview(self._block)
        checksum = zlib.crc32(block[:length]).to_bytes(4, "little")
        block[length : length + 4] = checksum
        self._file.put(block_key(number), block[: length + 4])
        origins = "\n".join(origin.replace("\n", " ") for origin in self._origins)
        self._file.put(origin_key(number), origins.encode("utf-8", "surrogateescape"))
        self._file.put(_state_key(number), checksum + self._numbers[:, :samples].tobytes())

    def commit(self, state: bytes) -> None:
        """Put everything added so far on disk, together with `state`."""
        rest = self.count % BLOCK
        if rest:
            # At its full length: so the room that it takes fits another block when this one has been replaced.
            self._put_block(rest, len(self._block) - 4)
        self._file.put(b"state", state)
        self._file.commit()
        self._committed = self.count

    def finish(self, labels: np.ndarray, content: PackContent) -> None:
        """Write the last block, labels, writers and meta, and forget the state.

        labels: uint16, the label of each character's number.
        """
        rest = self.count % BLOCK
        if rest:
            self._put_block(rest, rest * self.size * self.size)
        checksums, rows = [], []
        for number in range(-(-self.count // BLOCK)):
            value = self._value(_state_key(number))
            checksums.append(value[:4])
            rows.append(np.frombuffer(value[4:], "<u2").reshape(2, -1))
            self._file.delete(_state_key(number))
        self._file.delete(b"state")
        numbers, writers = np.concatenate(rows, axis=1)
        labels = labels[numbers].astype("<u2")
        self._file.put(b"labels", labels.tobytes())
        self._file.put(b"writers", writers.tobytes())
        self.meta = {
            "format": FORMAT,
            "version": VERSION,
            "size": self.size,
            "count": self.count,
            "block": BLOCK,
            "digest": digest_of(checksums, labels, writers, content["characters"]),
            "preprocessing": PREPROCESSING,
            **content,
        }
        self._file.put(b"meta", json.dumps(self.meta, ensure_ascii=False).encode("utf-8", "replace"))
        self._file.commit()

    def close(self) -> None:
        """Close the file; what was not committed is lost."""
        self._file.close()


def digest_of(checksums: Iterable[bytes], labels: np.ndarray, writers: np.ndarray, characters: str) -> str:
    """Return a split's digest: of the blocks' CRC32s as stored, uint16[N] labels and writers, and characters."""
    digest = hashlib.sha256(b"".join(checksums))
    for values in (labels, writers):
        digest.update(values.astype("<u2").tobytes())
    digest.update(characters.encode())
    return short_digest(digest)


def _state_key(number: int) -> bytes:
    return b"state/%08d" % number
