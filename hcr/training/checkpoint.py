"""Checkpoints: everything a restart needs in one file of plain types, written whole or not at all.

A full copy costs four times the weights (model, average, two moments of AdamW), so only the newest few are kept, beside
the best.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import IO, Any

import torch

from hcr.errors import DataError
from hcr.files import atomic_write, sync_folder
from hcr.layout import checkpoints
from hcr.models.weights import FORMAT, VERSION, read_checkpoint

KEPT = 2


def save(run: Path, step: int, content: dict[str, Any], *, best: bool) -> Path:
    """Write checkpoints/step-….pt, give it the name best.pt too where it is the best, and drop all but the newest.

    Raises: OSError where it cannot be written; the older checkpoints are then as they were.
    """
    path = run / "checkpoints" / f"step-{step:08d}.pt"
    # What a process left behind that was killed while it wrote; only one at a time trains a run.
    for left in path.parent.glob(".*.tmp"):
        left.unlink()
    with atomic_write(path) as file:
        _write({"format": FORMAT, "version": VERSION, "step": step, **content}, file)
    if best:
        _link(path, path.with_name("best.pt"))
    # Files of later steps are ones that a resume skipped as damaged: they must not push out the good ones.
    for old in [known for known in checkpoints(run) if known.name <= path.name][KEPT:]:
        old.unlink()
    return path


def _write(content: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(content, file)
    except RuntimeError as error:
        # torch hides what went wrong (a full disk) behind its failure to end a file that was cut short.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _link(path: Path, name: Path) -> None:
    """Give the file a second name: no bytes are copied, and dropping one name leaves the other."""
    temporary = name.with_name(f".{name.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        # A file system without hard links (exFAT, some network ones).
        shutil.copyfile(path, temporary)
    os.replace(temporary, name)
    sync_folder(name.parent)


def newest_valid(run: Path, device: str) -> tuple[dict[str, Any] | None, list[str]]:
    """Read a run's newest valid checkpoint by step; None where there is none.

    Gives a line for each newer one that was skipped, saying why.
    """
    skipped: list[str] = []
    for path in checkpoints(run):
        try:
            return read_checkpoint(path, device), skipped
        except DataError as error:
            skipped.append(str(error))
    return None, skipped
