"""Released weights: one safetensors file in half precision that says all about itself in its metadata.

Half precision halves the file and changed 1 of 4,000 answers on real handwriting; computed is in float32 all the same.
The format has no checksum, so the metadata has one, over everything: a flipped bit in the list of characters would
otherwise answer with wrong ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hcr.charset import Charset
from hcr.errors import DataError
from hcr.files import atomic_write, short_digest
from hcr.models.recognizer import SavedModel

FORMAT = "hcr-released"
VERSION = 1
# Keys of the metadata: texts, and values in JSON.
TEXTS = ("arch", "characters", "licence")
VALUES = ("size", "preprocessing", "training", "figures")
# What stands in the place of the checksum while it is computed.
UNSIGNED = "0" * 64


class TrainingRecord(TypedDict):
    """What one run learnt from, and how; places are those in `ReleasedTraining.runs` (docs/formats.md)."""

    config: dict[str, Any]
    pack: dict[str, str]
    before: int | None
    teacher: NotRequired[int | None]  # older files lack it
    mean_with: list[int]
    steps: int
    pictures: int
    seconds: int | None
    machines: list[str]
    versions: dict[str, str]
    git: str | None
    validation: Mapping[str, Any] | None
    temperature: NotRequired[float]
    narrowed: NotRequired[Any]


class ReleasedTraining(TrainingRecord):
    """The last run's record, with those of all runs that went into it, the first one first."""

    runs: list[TrainingRecord]


class Hardest(TypedDict):
    """One of the characters that were read worst."""

    char: str
    n: int
    top1: float
    top5: float
    taken_for: str


class Figures(TypedDict, total=False):
    """What was measured on real handwriting; nothing where nothing was (docs/formats.md)."""

    weights: str
    n: int
    characters: int
    classes: int
    left_out: int
    top1: float
    top5: float
    top1_interval: tuple[float, float]
    top5_interval: tuple[float, float]
    macro_recall: float
    mean_score: float
    calibration_error: float
    ms_1: float
    ms_64: float
    ms_fitting: float
    machine: str
    worst: list[Hardest]


class Released(SavedModel):
    """Released weights as they are read: `ema` in float32, `pack` taken out of `training`."""

    licence: str
    training: ReleasedTraining
    figures: Figures


def is_released(path: Path) -> bool:
    """Tell by its content, not its name, whether a file is safetensors: byte 8 opens the JSON of its header."""
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError:
        return False


def read_released(path: Path, device: str = "cpu") -> Released:
    """Read and check released weights.

    Raises: DataError where the file is damaged, not released by hcr, or of another version.
    """
    try:
        with safe_open(path, "pt", device=device) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not readable as released weights ({str(error).splitlines()[0]})") from None
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path}: not weights released by hcr (expected the metadata format = {FORMAT!r})")
    if metadata.get("version") != str(VERSION):
        raise DataError(
            f"{path}: released weights of version {metadata.get('version')}, expected {VERSION}; use the hcr that "
            "they came with"
        )
    missing = [key for key in (*TEXTS, *VALUES, "sha256") if key not in metadata]
    if missing:
        raise DataError(f"{path}: incomplete released weights, the keys {', '.join(missing)} are missing")
    found = _checksum(path.read_bytes(), metadata["sha256"])
    if found != metadata["sha256"]:
        raise DataError(
            f"{path}: damaged released weights (SHA-256 {found[:16]}…, expected {metadata['sha256'][:16]}…); "
            "install them again"
        )
    try:
        size, preprocessing, training, figures = (json.loads(metadata[key]) for key in VALUES)
        pack = training.get("pack", {})
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: metadata of released weights that is not as described ({error})") from None
    return {
        "arch": metadata["arch"],
        "size": size,
        "characters": metadata["characters"],
        "preprocessing": preprocessing,
        "ema": {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()},
        "pack": pack,
        "licence": metadata["licence"],
        "training": training,
        "figures": figures,
    }


def write_released(path: Path, content: SavedModel, licence: str, training: ReleasedTraining, figures: Figures) -> None:
    """Write the averaged weights (EMA) of a model in half precision; the same arguments give the same bytes.

    training: what it learnt from, and how. figures: what was measured.
    Raises: DataError for a weight that half precision cannot hold.
    """
    charset = Charset(content["characters"])
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "arch": content["arch"],
        "size": _json(content["size"]),
        "characters": charset.characters,
        "charset_digest": charset.digest,
        "preprocessing": _json(content["preprocessing"]),
        "licence": licence,
        "training": _json(training),
        "figures": _json(figures),
        "sha256": UNSIGNED,
    }
    raw = _in_order(save(halved(content["ema"])), metadata)
    with atomic_write(path) as file:
        file.write(raw.replace(UNSIGNED.encode(), _checksum(raw, UNSIGNED).encode(), 1))


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict's floats as float16, on the CPU.

    Raises: DataError naming a tensor that is then not finite.
    """
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    for name, value in halves.items():
        if not value.isfinite().all():
            raise DataError(f"{name}: not finite in half precision, which ends at 65,504; it cannot be released")
    return {name: value.cpu().contiguous().clone() for name, value in halves.items()}


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return the first 16 hex digits of the SHA-256 of tensors' names and float32 bytes: figures name weights by it."""
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode())
        found.update(state[name].to(torch.float32).cpu().contiguous().numpy().tobytes())
    return short_digest(found)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _in_order(raw: bytes, metadata: Mapping[str, str]) -> bytes:
    """Put metadata into a safetensors file: its own writer puts it in another order each time."""
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.dumps({"__metadata__": metadata, **json.loads(raw[8:end])}, ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + raw[end:]


def _checksum(raw: bytes, stated: str) -> str:
    """Return the SHA-256 of a file, 64 zeros standing where it states its own."""
    return hashlib.sha256(raw.replace(stated.encode(), UNSIGNED.encode(), 1)).hexdigest()
