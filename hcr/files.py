"""Files that are either whole or absent, and work that only one process does at a time.

A file is written beside its final name and renamed over it only when every byte is on disk, so that a crash or a full
disk leaves the older file as it was. The cost is room for both at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hcr.errors import DataError, HcrError


@contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open `path` for writing; it appears under its name, complete and synced, only if the block ends well.

    mode: "wb"; "w+b" to read it back before; "w" for UTF-8 text with "\\n" line ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with open(temporary, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power loss (a no-op where folders cannot be opened, as on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Hold `path` as a lock file, with this process's number and machine in it, and remove it at the end.

    doing: what the holder does, for the error of a second process. A process that has ended, however, holds nothing.
    Raises: HcrError at once, with the process that holds the lock, where there is one.
    """
    import fcntl

    # The kernel frees the lock with the process, so a number left behind is never trusted. These are POSIX locks, not
    # flock's, which would live on in forked children: those may survive a killed parent for seconds. NFS carries POSIX
    # locks to its server, so they hold between machines. A file system without locks is an error.
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = os.read(descriptor, 256).decode("utf-8", "replace").strip() or "another process"
            os.close(descriptor)
            raise HcrError(f"{path}: {holder} is {doing}; wait for it, or end it") from None
        except OSError:
            os.close(descriptor)
            raise
        if _is_at(descriptor, path):
            break
        # Its last holder removed it after this process opened it and before it was locked.
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def short_digest(raw: bytes | hashlib._Hash) -> str:
    """Return the first 16 hex digits of a SHA-256, by which records and errors name contents.

    raw: the bytes, or a SHA-256 object that was fed with them.
    """
    return (hashlib.sha256(raw) if isinstance(raw, bytes) else raw).hexdigest()[:16]


def free_bytes(folder: Path) -> int:
    """Return the bytes that can still be written below `folder`."""
    return shutil.disk_usage(folder).free


def write_json(path: Path, value: object) -> None:
    """Write `value` as readable UTF-8 JSON, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises: DataError where the file is missing, unreadable, or not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from None
