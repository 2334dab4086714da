"""The two places a corpus lies in, read alike: a folder on disk, and a zip archive, which is never unpacked.

A zip's directory is read once a process and kept, so that thousands of class folders can be read from one archive. That
costs about 1 KB of memory a member.
"""

from __future__ import annotations

import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from hcr.errors import DataError

# What operating systems leave behind; names that start with a dot are hidden too.
_LITTER = {"__macosx", "thumbs.db", "desktop.ini"}
# All that zipfile lets through on damaged or unsupported input; RuntimeError is an encrypted member.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)


class Listing(NamedTuple):
    """One folder of a place.

    folder: relative to the place, "/" between the parts; "" for the place itself.
    files: (name, bytes when read) of the files directly in it, sorted by name; hidden ones are left out.
    """

    folder: str
    files: list[tuple[str, int]]


@dataclass(frozen=True)
class Folder:
    """A folder on disk."""

    path: Path

    def walk(self) -> Iterator[Listing]:
        """Yield every folder, itself first, in the order of their names, with one listing in memory at a time."""
        yield from self._walk("")

    def _walk(self, folder: str) -> Iterator[Listing]:
        files, folders = [], []
        for entry in _scan(self.path / folder):
            if entry.is_dir():
                # A link to a folder above would go round for ever.
                if not (entry.is_symlink() and (self.path / folder).resolve().is_relative_to(Path(entry).resolve())):
                    folders.append(entry.name)
            else:
                files.append((entry.name, _size(entry)))
        yield Listing(folder, files)
        for name in folders:
            yield from self._walk(f"{folder}/{name}" if folder else name)

    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly in `folder`, sorted."""
        return [entry.name for entry in _scan(self.path / folder) if not entry.is_dir()]

    def read(self, name: str) -> bytes:
        """Return a file's bytes. Raises: DataError where that fails."""
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise DataError(f"{self.path / name}: cannot be read ({error.strerror})") from None

    def changed(self, name: str) -> float:
        """Return when a file, or the folder of this name, last changed: see `changed`."""
        return changed(self.path / name)


@dataclass(frozen=True)
class Zip:
    """A zip archive. Its members' names only name things: nothing is ever written under them."""

    path: Path

    def walk(self) -> Iterator[Listing]:
        """Yield every folder that holds files, in the order of their names. Raises: DataError where it is no zip."""
        archive = _opened(self.path)
        for folder, names in sorted(archive.folders.items()):
            sizes = (archive.members[_join(folder, name)].file_size for name in names)
            yield Listing(folder, list(zip(names, sizes, strict=True)))

    def names(self, folder: str) -> list[str]:
        """Return the names of the files directly in `folder`, sorted."""
        return _opened(self.path).folders[folder]

    def read(self, name: str) -> bytes:
        """Return a member's bytes, checked by their CRC. Raises: DataError where that fails."""
        archive = _opened(self.path)
        try:
            return archive.file.read(archive.members[name])
        except _ZIP_ERRORS as error:
            raise DataError(f"{self.path}/{name}: damaged in its zip archive ({error})") from None

    def changed(self, name: str) -> float:
        """Return when the archive last changed: see `changed`."""
        return changed(self.path)


Place = Folder | Zip


def changed(path: Path) -> float:
    """Return when a file or folder last changed, in seconds since 1970; infinity where it is gone.

    The later of the times of its content and of its entry in the file system: a copy that keeps the old time of the
    content, as unpacking an archive does, is new by the other.
    """
    try:
        status = path.stat()
    except OSError:
        return math.inf
    return max(status.st_mtime, status.st_ctime)


def is_unpacked(archive: Path) -> bool:
    """Return whether a folder of the archive's name, with something in it, lies beside it."""
    folder = archive.with_suffix("")
    return folder.is_dir() and bool(_scan(folder))


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not _hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError as error:
        raise DataError(f"{entry.path}: cannot be read ({error.strerror}); repair or remove it") from None


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


class _Directory:
    """An open zip: its members by their name, and the sorted names of the files in each folder."""

    def __init__(self, path: Path) -> None:
        self.file = zipfile.ZipFile(path)
        self.members: dict[str, zipfile.ZipInfo] = {}
        self.folders: dict[str, list[str]] = {}
        infos = self.file.infolist()
        for info, name in zip(infos, _decoded([_raw_name(info) for info in infos]), strict=True):
            place = name.replace("\\", "/")
            parts = [part for part in place.split("/") if part not in ("", ".", "..")]
            if parts and not place.endswith("/") and not any(map(_hidden, parts)):
                self.members["/".join(parts)] = info
        for name in sorted(self.members):
            folder, _, file = name.rpartition("/")
            self.folders.setdefault(folder, []).append(file)


def _opened(path: Path) -> _Directory:
    try:
        status = path.stat()
        return _open(path, status.st_mtime_ns, status.st_size, os.getpid())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except _ZIP_ERRORS as error:
        raise DataError(f"{path}: not a zip archive, or cut short ({error}); download it again") from None


@lru_cache(maxsize=4)
def _open(path: Path, _changed: int, _size: int, _process: int) -> _Directory:
    """Open each archive once a process: two processes must not share one file position after a fork."""
    return _Directory(path)


def _raw_name(info: zipfile.ZipInfo) -> str | bytes:
    """Return a name in UTF-8 as text, any other as its bytes, which zipfile has read as cp437 for want of better."""
    name = info.orig_filename.partition("\0")[0]
    return name if info.flag_bits & 0x800 else name.encode("cp437", "replace")


def _decoded(names: list[str | bytes]) -> list[str]:
    """Return all names, read in the first encoding that fits them all.

    One name is not enough: the GBK bytes of 一 are valid UTF-8 too. Chinese Windows writes GBK.
    """
    for encoding in ("utf-8", "gbk"):
        try:
            return [name if isinstance(name, str) else name.decode(encoding) for name in names]
        except UnicodeDecodeError:
            continue
    return [name if isinstance(name, str) else name.decode("cp437") for name in names]
