"""What the labels of an HDF5 file mean, which the file need not say.

GBK codes name their characters, and so does a list in the file. Bare numbers are in one of several orders in use. The
wrong one would give every sample a wrong character without any sign of it. The shape of 一, the only character much
wider than high, tells code-point order from GB2312 order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from hcr.charset import Charset
from hcr.corpus.gnt import char_of_tag
from hcr.errors import DataError
from hcr.text import counted

_TAGS, _NUMBERS = ("tagcode", "t"), "y"
# GBK codes of Chinese characters start here; no list of characters is so long.
_FIRST_TAG = 0x8140
# The ink of 一 is at least this many times as wide as high, in the median of its samples: 4.7 in drawn pictures of all
# 3,755 characters of level 1, where the next widest, 皿, has 1.7.
_FLAT = 2.5
_RUN_BYTES = 1 << 22

# ink(group, indices): pictures uint8[H, W], 255 = paper, of these samples.
Ink = Callable[[str, list[int]], Iterable[np.ndarray]]


class Labels(NamedTuple):
    """The labels of one group: the array's name, bytes of one, whether they are GBK codes, values int64[N]."""

    name: str
    bytes: int
    tags: bool
    values: np.ndarray


def read_labels(group: Any, where: str) -> Labels:
    """Return all labels of a group. Raises: DataError where it has none, or of no known kind."""
    name = next((name for name in (*_TAGS, _NUMBERS) if name in group), "")
    if not name:
        raise DataError(f"{where}: holds {', '.join(group) or 'nothing'}; expected pictures x and labels y")
    values = _scan(group[name], f"{where}/{name}")
    return Labels(name, _row_bytes(group[name]), name in _TAGS or bool((values >= _FIRST_TAG).any()), values)


def values_of(rows: np.ndarray) -> np.ndarray:
    """Return rows of labels as int64[N]: numbers, one-hot rows, or GBK codes (the first byte is the higher one).

    Raises: DataError for anything else.
    """
    if rows.ndim == 2 and rows.shape[1] == 1:
        rows = rows[:, 0]
    if rows.ndim == 1 and rows.dtype.kind in "ui":
        return rows.astype(np.int64)
    if rows.ndim == 2 and rows.dtype == np.uint8 and rows.shape[1] == 2 and rows.max(initial=0) > 1:
        codes: np.ndarray = rows[:, 0].astype(np.int64) << 8 | rows[:, 1]
        return codes
    if rows.ndim == 2 and rows.dtype.kind in "uibf" and (np.count_nonzero(rows, axis=1) == 1).all():
        positions: np.ndarray = (rows != 0).argmax(1)
        return positions
    raise DataError(
        f"labels are {rows.dtype}[{', '.join(map(str, ('N', *rows.shape[1:])))}]; expected whole numbers [N] or "
        "[N, 1], GBK codes uint16[N] or uint8[N, 2], or rows with a single 1"
    )


def char_of(value: int, tags: bool, characters: str) -> str:
    """Return the character of a label; "" where it means none."""
    if tags:
        return char_of_tag(value.to_bytes(2, "big")) if 0 <= value <= 0xFFFF else ""
    return characters[value].rstrip("\0") if 0 <= value < len(characters) else ""


def characters_of(file: Any, path: str, labels: Mapping[str, Labels], numbering: Charset, ink: Ink) -> tuple[str, str]:
    """Return the characters of labels 0, 1, 2 … ("\\0": none), and a few words that say how they are known.

    Raises: DataError where a label is of no character, or where the order cannot be told.
    """
    numbered = {group: found for group, found in labels.items() if not found.tags}
    if not numbered:
        return "", "labelled by GBK codes"
    if characters := _own_list(file, path):
        how = f"labelled by numbers into the file's own list of {counted(len(characters), 'character')}"
    elif characters := _taught(file, path, labels):
        how = "labelled by numbers whose GBK codes stand beside them in another group"
    else:
        characters, how = _ordered(path, numbered, numbering, ink)
    for group, found in numbered.items():
        wrong = np.flatnonzero([not char_of(value, False, characters) for value in found.values.tolist()])
        if wrong.size:
            raise DataError(
                f"{path}/{group}/{found.name}: label {found.values[wrong[0]]} of sample {wrong[0]}, but the numbers "
                f"count through {counted(len(characters), 'character')}, 0 to {len(characters) - 1}; name the "
                "charset that they "
                "number with --charset"
            )
    return characters, how


def _scan(array: Any, where: str) -> np.ndarray:
    """Return an array of labels, read in pieces: one-hot rows are a thousand times as long as what they say."""
    shape: tuple[int, ...] = getattr(array, "shape", ())
    if not 1 <= len(shape) <= 2:
        raise DataError(f"{where}: not an array of labels; expected [N], [N, 1] or [N, classes]")
    step = max(1, _RUN_BYTES // max(1, _row_bytes(array)))
    try:
        parts = [values_of(array[start : start + step]) for start in range(0, shape[0], step)]
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _row_bytes(array: Any) -> int:
    return int(array.dtype.itemsize * np.prod(array.shape[1:], dtype=np.int64))


def _own_list(file: Any, path: str) -> str:
    """Return the list of characters that a file may have, as an attribute or an array of the name `characters`."""
    place = next((place for place in (file.attrs, file) if "characters" in place), None)
    if place is None:
        return ""
    found = place["characters"]
    found = found[()] if hasattr(found, "asstr") else found
    entries = [found] if isinstance(found, str | bytes) else np.asarray(found).ravel().tolist()
    text = [entry.decode("utf-8", "replace") if isinstance(entry, bytes) else str(entry) for entry in entries]
    characters = list(text[0]) if len(text) == 1 else text
    try:
        digest = Charset(characters).digest
    except DataError as error:
        raise DataError(f"{path}: its list `characters` ({error}); expected one character for each label") from None
    if (stated := file.attrs.get("charset_digest", digest)) != digest:
        raise DataError(f"{path}: its list `characters` has the digest {digest}, expected {stated}; download it again")
    return "".join(characters)


def _taught(file: Any, path: str, labels: Mapping[str, Labels]) -> str:
    """Return the characters of the numbers, from groups that have both numbers and GBK codes."""
    meaning: dict[int, str] = {}
    for group, found in labels.items():
        if not found.tags or found.name == _NUMBERS or _NUMBERS not in file[group]:
            continue
        numbers = _scan(file[group][_NUMBERS], f"{path}/{group}/{_NUMBERS}")
        if len(numbers) != len(found.values):
            continue
        for number, tag in np.unique(np.stack([numbers, found.values]), axis=1).T.tolist():
            char = char_of(tag, True, "")
            if meaning.setdefault(number, char) != char:
                raise DataError(
                    f"{path}/{group}: label {number} is {meaning[number]} and {char} by the GBK codes in {found.name}; "
                    "take one of the two arrays out"
                )
    return "".join(meaning.get(number) or "\0" for number in range(max(meaning) + 1)) if meaning else ""


def _ordered(path: str, numbered: Mapping[str, Labels], numbering: Charset, ink: Ink) -> tuple[str, str]:
    """Return the order in which numbers count through the charset, by the shape of 一, and words for it."""
    by_code_point = numbering.characters
    # GB18030 has all characters, and those of GB2312 at the codes that they have there.
    by_gb2312 = "".join(sorted(by_code_point, key=lambda char: char.encode("gb18030")))
    first, second = (_widths(order, numbered, ink) for order in (by_code_point, by_gb2312))
    if (not first and not second) or np.median(first or [0]) >= _FLAT:
        return by_code_point, f"labelled by numbers in code-point order (0 is {by_code_point[0]})"
    if np.median(second or [0]) >= _FLAT:
        return by_gb2312, f"labelled by numbers in GB2312 order (0 is {by_gb2312[0]}), as the pictures of 一 show"
    raise DataError(
        f"{path}: labels are numbers in an order that cannot be told: those of 一 in code-point order and in GB2312 "
        f"order are on pictures of another shape; write their characters into the file, in the order of the numbers, "
        "as the attribute `characters`"
    )


def _widths(order: str, numbered: Mapping[str, Labels], ink: Ink) -> list[float]:
    """Return width over height of the ink of up to 32 samples a group that would be 一."""
    label = order.find("一")
    widths = []
    for group, found in numbered.items():
        for picture in ink(group, np.flatnonzero(found.values == label)[:32].tolist()):
            rows, columns = (np.flatnonzero((picture < 255).any(axis)) for axis in (1, 0))
            if rows.size:
                widths.append(float((columns[-1] - columns[0] + 1) / (rows[-1] - rows[0] + 1)))
    return widths
