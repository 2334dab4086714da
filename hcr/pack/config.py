"""What decides the content of a pack: the block size, and the settings with their ranges and help."""

from __future__ import annotations

from dataclasses import dataclass

from hcr.charset import Charset
from hcr.config import check_settings, described, setting

MIN_SIZE, MAX_SIZE = 16, 256
# Samples in a value of the LMDB file. Readers take it from each pack's meta: packs of another block size stay readable.
BLOCK = 64


@described
@dataclass(frozen=True)
class PackConfig:
    """What decides the content of a pack, beside its sources.

    Raises: UsageError for a value of another type or out of its range.
    """

    size: int = setting(64, "Pixels a side.", MIN_SIZE, MAX_SIZE)
    characters: Charset | None = setting(None, "Characters to keep.", usual="all that occur")  # noqa: RUF009 (immutable)
    fixed: bool = setting(False, "Number all of `characters`, also those that do not occur.")
    val: float = setting(0.1, "Share of training writers that validate.", 0.0, 0.99999)
    seed: int = setting(0, "Random seed of the validation split.", 0)
    skip_damaged: bool = setting(False, "Leave damaged records out, counted, instead of stopping.")

    def __post_init__(self) -> None:
        check_settings(self)
