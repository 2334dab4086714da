"""What fonts were read into, kept on disk: the next start takes it from there.

Reading ten fonts for 3,755 characters takes minutes; what it makes are 270 MB of arrays, which load in a second. They
are a function of the fonts, the characters and this program, so their file is named by a digest of these. A program
that was changed finds nothing and reads the fonts anew.

A file is an .npz followed by a SHA-256 of its key and its bytes, which is checked before anything else is believed.
What is damaged, cut short or foreign counts as absent, and is written anew. A file appears under its name only when it
is complete, so several processes may write the same one. Where the folder cannot be written, nothing is kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
import PIL
import torch
from PIL import features

from hcr.files import atomic_write
from hcr.layout import cache_folder

_MOST = 1 << 30  # bytes of all files; those that were not used for longest go first
_DIGEST = hashlib.sha256().digest_size
_PART = 1 << 20
# The folder or the disk refuses, or nobody knows where the user's folder is.
_NO_FOLDER = (OSError, RuntimeError)


def key_of(fonts: Sequence[str], characters: str) -> str:
    """Return the name of what the fonts with these digests give for `characters`: 64 hex digits."""
    key = hashlib.sha256(_program())
    for part in (*fonts, characters):
        key.update(hashlib.sha256(part.encode()).digest())
    return key.hexdigest()


@cache
def _program() -> bytes:
    """Return a digest of all that decides what fonts give: the sources of hcr.synth, the stroke table, the libraries.

    The sources, not a version: nobody has to remember to raise it, and it costs a developer one reading of the fonts.
    """
    program = hashlib.sha256()
    versions = np.__version__, torch.__version__, PIL.__version__, features.version("freetype2")
    program.update(repr(versions).encode())
    room = Path(__file__).parents[1]
    for path in sorted([*room.rglob("*.py"), room / "strokes.bin"]):
        program.update(hashlib.sha256(path.relative_to(room).as_posix().encode()).digest())
        program.update(hashlib.sha256(path.read_bytes()).digest())
    return program.digest()


def load(key: str) -> dict[str, np.ndarray] | None:
    """Return the arrays that `save` kept under `key`, None where there are none, or none that can be believed."""
    with suppress(*_NO_FOLDER), open(path := _path(key), "rb") as file:
        size = os.fstat(file.fileno()).st_size - _DIGEST
        if size > 0 and _digest(file, size, key) == file.read():
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                found = {name: _widened(arrays[name]) for name in arrays.files}
            # By this time files are removed. A folder that can only be read keeps the old one.
            with suppress(OSError):
                os.utime(path)
            return found
    return None


def save(key: str, arrays: Mapping[str, np.ndarray], folder: Path | None = None) -> None:
    """Keep arrays of numbers; int64 is the only kind of integers. folder: another cache; None: the user's."""
    with suppress(*_NO_FOLDER):
        path = _path(key, folder)
        with atomic_write(path, "w+b") as file:
            np.savez(file, **{name: _narrowed(array) for name, array in arrays.items()})  # type: ignore[arg-type]
            size = file.seek(0, os.SEEK_END)
            file.write(_digest(file, size, key))
        _remove_oldest(path)


def _path(key: str, folder: Path | None = None) -> Path:
    return (folder or cache_folder()) / "fonts" / f"{key[:32]}.npz"


def _digest(file: IO[bytes], size: int, key: str) -> bytes:
    """Return the digest of a key and the first `size` bytes of a file, which is left at their end."""
    digest = hashlib.sha256(key.encode())
    file.seek(0)
    while size > 0 and (part := file.read(min(size, _PART))):
        digest.update(part)
        size -= len(part)
    return digest.digest()


def _narrowed(array: np.ndarray) -> np.ndarray:
    """Return integers in the fewest bytes that hold them."""
    if array.dtype != np.int64 or not array.size:
        return array
    for kind in (np.int8, np.int16, np.int32):
        if np.iinfo(kind).min <= array.min() and array.max() <= np.iinfo(kind).max:
            return array.astype(kind)
    return array


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int64) if array.dtype.kind in "iu" else array


def _remove_oldest(newest: Path) -> None:
    """Keep the files within _MOST bytes, the newest in any case; half-written ones of killed processes count, too."""
    total = 0
    files = [(path.stat(), path) for path in newest.parent.iterdir() if path.is_file()]
    for status, path in sorted(files, key=lambda entry: -entry[0].st_mtime):
        total += status.st_size
        if total > _MOST and path != newest:
            path.unlink(missing_ok=True)
