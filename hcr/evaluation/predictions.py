"""Predictions as a file: arrays, and the characters that their labels stand for.

That is enough to evaluate or compare them again. The same form serves results, the unfinished part of an interrupted
evaluation, and predictions of other systems.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from hcr.errors import DataError
from hcr.evaluation.metrics import Predictions
from hcr.files import atomic_write

ARRAYS = ("index", "target", "top", "score")


def write_predictions(path: Path, predictions: Predictions, facts: dict[str, str]) -> None:
    """Write the arrays of `predictions`, and each of `facts` as a text, atomically."""
    arrays: dict[str, Any] = vars(predictions) | {name: np.array(text) for name, text in facts.items()}
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)


def read_predictions(path: Path) -> tuple[Predictions, dict[str, str]]:
    """Read what `write_predictions` wrote. Raises: DataError where it is missing, damaged, or of another kind."""
    arrays = read_arrays(path)
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise DataError(f"{path}: lacks {', '.join(missing)}; make it again with hcr-eval")
    facts = {name: str(array) for name, array in arrays.items() if array.dtype.kind == "U" and not array.ndim}
    return Predictions(*(arrays[name] for name in ARRAYS)), facts


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read every array of an .npz file; nothing in it is unpickled. Raises: DataError where it cannot be read."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not readable as an .npz file ({reason})") from None
