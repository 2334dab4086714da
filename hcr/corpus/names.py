"""What the names of files and folders say: which set, which split, which corpus.

Names are all that recognition has before anything is read; a name that says nothing gives None, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

SPLIT_WORDS = {"train": "train", "trn": "train", "training": "train", "test": "test", "tst": "test", "testing": "test"}
SPLIT_WORDS |= {"val": "val", "vld": "val", "validation": "val"}
HDF5 = (".h5", ".hdf5")
# HWDB1.1trn_gnt, HWDB1.1trn_gnt_P1, Gnt1.0TrainPart1 …: archives of CASIA-HWDB and the folders that they unpack to.
_HWDB = re.compile(
    r"(?:casia[-_ ]?)?(?:hwdb|gnt)[-_ ]?(1\.[012])[-_ ]?(train|trn|test|tst)?(?:[-_ ]?gnt)?(?:[-_ ]?(?:part|p)\d+)?",
    re.IGNORECASE,
)
_COMPETITION = re.compile(r"competition(?:[-_ ]?gnt)?", re.IGNORECASE)


def known_set(name: str) -> tuple[str | None, str | None]:
    """Return the CASIA set and the split that a folder or archive of this name holds, as far as its name says."""
    if match := _HWDB.fullmatch(name):
        return f"hwdb{match[1]}", SPLIT_WORDS.get((match[2] or "").lower())
    return ("competition", "test") if _COMPETITION.fullmatch(name) else (None, None)


def split_of(folders: Sequence[str]) -> str | None:
    """Return the split that the nearest folder or archive names."""
    splits = (SPLIT_WORDS.get(folder.lower()) or known_set(folder)[1] for folder in reversed(folders))
    return next(filter(None, splits), None)


def split_of_writer(stem: str) -> str | None:
    """Return the official split of a writer, where no folder says it: HWDB1.1 is 1001 to 1300, the last 60 are test."""
    if match := re.fullmatch(r"(1\d{3})-[a-z]", stem):
        number = int(match[1])
        return "train" if 1001 <= number <= 1240 else "test" if 1241 <= number <= 1300 else None
    return "test" if re.fullmatch(r"C\d{3}-[a-z]", stem) else None


def corpus_name(path: Path) -> str:
    """Return a name for the corpus in `path`: the CASIA set where it is one, else the file or folder."""
    path = path.resolve()
    if path.suffix.lower() == ".gnt":
        path = path.parent
    if stem(path).lower() in SPLIT_WORDS:
        path = path.parent
    return known_set(stem(path))[0] or stem(path) or "corpus"


def stem(path: Path) -> str:
    """Return the name of `path` without the ending of an archive."""
    return path.stem if path.suffix.lower() in (".zip", ".alz", *HDF5) else path.name
