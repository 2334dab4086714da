"""Weights as models read them, from a checkpoint or a released file: checked before they are believed.

A checkpoint is plain types only. torch's own reader does not look at the checksums in its file; a full pass of
`zipfile` over it finds every flipped bit at about the speed of the disk.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired

import torch
from torch import Tensor

from hcr.charset import Charset
from hcr.errors import DataError, UsageError
from hcr.models.recognizer import Recognizer, SavedModel
from hcr.models.released import is_released, read_released
from hcr.preprocess.fit import PREPROCESSING, is_compatible

FORMAT = "hcr-checkpoint"
VERSION = 1
MODEL_KEYS = ("arch", "size", "characters", "preprocessing", "ema")


class Checkpoint(SavedModel):
    """All that a restart of training needs, in plain types (docs/formats.md says what each key holds)."""

    format: str
    version: int
    step: int
    charset_digest: str
    teacher: NotRequired[str | None]  # older files lack it
    config: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    scaler: dict[str, Any]
    random: dict[str, int]
    epochs: int
    tally: dict[str, list[float]]
    faults: dict[str, int]
    best: Mapping[str, Any] | None  # a row of metrics.jsonl
    metrics_bytes: int


def read_checkpoint(path: Path, device: str = "cpu") -> Checkpoint:
    """Read and check a checkpoint file.

    Raises: DataError where it is missing, damaged, none of hcr-train's, or of another version.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise DataError(f"{path}: damaged checkpoint (checksum of {damaged} is wrong); use another one")
        # An open file: of a name that ends in .safetensors torch believes that it is one.
        with path.open("rb") as file:
            content: Checkpoint = torch.load(file, map_location=device, weights_only=True)
    except (zipfile.BadZipFile, RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable checkpoint ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path}: not a checkpoint of hcr-train (expected the key format = {FORMAT!r})")
    if content["version"] != VERSION:
        raise DataError(
            f"{path}: checkpoint version {content['version']}, expected {VERSION}; use the hcr that wrote it"
        )
    missing = [key for key in MODEL_KEYS if key not in content]
    if missing:
        raise DataError(f"{path}: incomplete checkpoint, the keys {', '.join(missing)} are missing")
    return content


def read_model(path: Path, device: str = "cpu") -> SavedModel:
    """Read a checkpoint, or released weights: whichever the file is.

    Raises: DataError as `read_checkpoint` and `read_released` do.
    """
    return read_released(path, device) if is_released(path) else read_checkpoint(path, device)


def load_recognizer(path: Path, device: str = "cpu") -> Recognizer:
    """Load the model of a checkpoint (its averaged weights, EMA) or of released weights, float32, in eval mode.

    Raises: DataError as `read_model` does, and where its preprocessing or weights do not fit this program;
    UsageError where this program, or this installation, has no such network.
    """
    content = read_model(path, device)
    require_preprocessing(content, path)
    try:
        model = Recognizer(content["arch"], Charset(content["characters"]), content["size"]).to(device)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    load_weights(model, content["ema"], path)
    return model.eval()


def require_preprocessing(content: SavedModel, path: Path) -> None:
    """Refuse weights whose pictures were made another way. Raises: DataError with both ways."""
    if not is_compatible(content["preprocessing"]):
        raise DataError(
            f"{path}: trained on pictures prepared by {content['preprocessing']}, "
            f"this program prepares by {PREPROCESSING}"
        )


def load_weights(model: torch.nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Put a state dict into `model`.

    Raises: DataError naming the first key that is missing, unknown or of another shape.
    """
    own = model.state_dict()
    for key in [*own, *state]:
        if key not in state or key not in own:
            where = "the file" if key in state else "the model"
            raise DataError(f"{path}: weights of another model: {key} is only in {where}")
        if own[key].shape != state[key].shape:
            expected, found = (list(tensor.shape) for tensor in (own[key], state[key]))
            raise DataError(f"{path}: weights of another model: {key} is {found}, expected {expected}")
    model.load_state_dict(state)
