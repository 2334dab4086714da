"""Do the characters of a pack and those that somebody's answers are about fit together, and which samples are judged.

Nothing is ever narrowed silently: figures over fewer characters look better than they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hcr.charset import Charset
from hcr.errors import DataError, UsageError
from hcr.layout import splits_of
from hcr.pack.store import PackReader, open_pack


def open_split(pack: Path, split: str) -> PackReader:
    """Open a split of a pack. Raises: UsageError where the pack lacks it; DataError where it is damaged."""
    available = splits_of(pack)
    if split not in available:
        raise UsageError(f"{pack}: no split {split!r}; it has {', '.join(available)}: choose one with --split")
    return open_pack(pack / f"{split}.lmdb")


def shared_charset(reader: PackReader, known: Charset, name: str, *, only_shared: bool) -> Charset:
    """Give the characters that are judged: those `known` to what is called `name`, which must be the pack's.

    only_shared: take those that both have instead. Raises: DataError where they differ, or share none.
    """
    if not only_shared:
        try:
            reader.charset.require_same(known, str(reader.path), name)
        except DataError as error:
            raise DataError(f"{error}; --only-shared scores the characters that both have") from None
        return known
    shared = set(known.characters) & set(reader.charset.characters)
    if not shared or not len(samples_of(reader, Charset(shared))):
        raise DataError(f"{reader.path}: no sample of a character that {name} knows; score another pack")
    return Charset(shared)


def labels_in(charset: Charset, other: Charset) -> np.ndarray:
    """Give for each label of the charset `other` the one in `charset`, int64[C]; -1 for a character it lacks."""
    return np.array([charset.label(char) if char in charset else -1 for char in other.characters], np.int64)


def samples_of(reader: PackReader, charset: Charset) -> np.ndarray:
    """Give the positions int64[N] of the samples whose character is in `charset`, ascending."""
    return np.flatnonzero(labels_in(charset, reader.charset)[reader.labels] >= 0)
