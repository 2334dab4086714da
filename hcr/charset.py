"""The characters a model can name, in the one order that counts.

Labels are positions in code-point order, the order of the tutorial's numbered folders (一 = 0 … 龟 = 3754). Other
projects number in GB2312 order, so the characters themselves travel inside every pack, checkpoint and export, and two
artefacts meet only after `require_same`.
"""

from __future__ import annotations

import json
import pickletools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hcr.errors import DataError
from hcr.files import short_digest, write_json
from hcr.text import counted

if TYPE_CHECKING:
    import numpy as np


class Charset:
    """Characters in code-point order; the position is the label.

    Raises: DataError for an entry that is not one code point, or for no entry at all.

    Example:
        charset = hcr.Charset.level1()
        print(len(charset), charset.label("永"), charset[0])  # 3755 characters; 一 is label 0
    """

    def __init__(self, characters: Iterable[str]) -> None:
        entries = list(characters)
        for entry in entries:
            if not _is_character(entry):
                raise DataError(f"charset: {entry!r} is not one character")
        if not entries:
            raise DataError("charset: no characters")
        self.characters = "".join(sorted(set(entries)))
        self._labels = {char: label for label, char in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def __getitem__(self, label: int) -> str:
        return self.characters[label]

    def __contains__(self, char: object) -> bool:
        return char in self._labels

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Charset) and self.characters == other.characters

    def __hash__(self) -> int:
        return hash(self.characters)

    def label(self, char: str) -> int:
        """Return the label of `char`. Raises: DataError where it is not one of these characters.

        Example:
            charset = hcr.Charset("三一二")
            print(charset.label("三"))  # 1: code points say 一, 三, 二
        """
        try:
            return self._labels[char]
        except KeyError:
            if len(char) != 1:
                raise DataError(f"charset: {char!r} is not one character") from None
            raise DataError(
                f"charset: {char!r} (U+{ord(char):04X}) is not among its {counted(len(self), 'character')}"
            ) from None

    def labels_in(self, other: Charset) -> np.ndarray:
        """Return for each label of this charset the one in `other`, int64[C]; -1 for a character that `other` lacks."""
        # Here, since commands show their help without numpy.
        import numpy as np

        return np.array([other._labels.get(char, -1) for char in self.characters], np.int64)

    @property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 of the characters in order, as UTF-8."""
        return short_digest(self.characters.encode())

    def require_same(self, other: Charset, mine: str, others: str) -> None:
        """Refuse two artefacts, named `mine` and `others`, whose labels mean different characters.

        Raises: DataError with both counts and digests, and the first label at which they differ.
        """
        if self == other:
            return
        common = min(len(self), len(other))
        first = next((i for i in range(common) if self[i] != other[i]), common)
        own, others_own = (repr(c[first]) if first < len(c) else "nothing" for c in (self, other))
        raise DataError(
            f"{mine} has another charset ({counted(len(self), 'character')}, {self.digest}) than {others} "
            f"({len(other)}, {other.digest}): label {first} is {own} against {others_own}"
        )

    @classmethod
    def level1(cls) -> Charset:
        """Return GB2312 level 1: the 3,755 characters at bytes B0A1 to D7F9.

        Example:
            print("永" in hcr.Charset.level1())  # True
        """
        return cls(_gb2312_rows(0xB0, 0xD7))

    @classmethod
    def gb2312(cls) -> Charset:
        """Return all 6,763 characters of GB2312, levels 1 and 2: bytes B0A1 to F7FE.

        Example:
            print(len(hcr.Charset.gb2312()))  # 6763
        """
        return cls(_gb2312_rows(0xB0, 0xF7))

    @classmethod
    def named(cls, name: str) -> Charset:
        """Return the charset that `name` means: "level1", "gb2312", or a file (see `read`).

        Raises: DataError where it is neither.

        Example:
            print(len(hcr.Charset.named("level1")))  # 3755
        """
        if name in KNOWN:
            return KNOWN[name]()
        if not Path(name).exists():
            raise DataError(f"charset {name!r}: no such name or file; name {', '.join(KNOWN)}, or a file of characters")
        return cls.read(Path(name))

    @classmethod
    def read(cls, path: Path) -> Charset:
        """Read a file of characters: JSON, text with one a line, or the tutorial's `char_dict`.

        Raises: DataError naming the file, and the line where one is wrong.

        Example:
            from pathlib import Path

            Path("mine.txt").write_text("永\\n和\\n", "utf-8")
            print(hcr.Charset.read(Path("mine.txt")).characters)  # 和永
        """
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot read a charset ({error.strerror})") from None
        return cls.parse(raw, str(path))

    @classmethod
    def parse(cls, raw: bytes, name: str) -> Charset:
        """Read characters from JSON (`{"characters": "一丁…"}`, or a list), from UTF-8 text of one a line, or from the
        tutorial's `char_dict`, which is parsed without being unpickled.

        The order in a text or JSON file does not matter; labels are always in code-point order.
        Raises: DataError naming the file as `name`, and the line where one is wrong.
        """
        if raw.startswith(b"(d"):
            return cls(_read_char_dict(name, raw))
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}: byte {error.start} is not UTF-8; save the charset as UTF-8 text or JSON"
            ) from None
        if text.lstrip()[:1] in ("{", "["):
            return cls(_read_json(name, text))
        lines = [line.strip() for line in text.splitlines()]
        for number, line in enumerate(lines, 1):
            if len(line) > 1:
                raise DataError(f"{name}: line {number} has {counted(len(line), 'character')}, expected one a line")
        return cls(_require_characters(name, [line for line in lines if line]))

    def write(self, path: Path) -> None:
        """Write as JSON, or as text of one character a line where the name ends in .txt.

        Example:
            from pathlib import Path

            hcr.Charset("一二三").write(Path("three.json"))
        """
        if path.suffix == ".txt":
            path.write_text("\n".join(self.characters) + "\n", "utf-8", newline="\n")
        else:
            write_json(path, {"characters": self.characters, "count": len(self), "digest": self.digest})


KNOWN = {"level1": Charset.level1, "gb2312": Charset.gb2312}
"""Charsets by name."""


def _gb2312_rows(first: int, last: int) -> list[str]:
    """Return the characters of rows `first` to `last`. Row D7 ends early, at D7F9: five codes decode to nothing."""
    codes = (bytes((high, low)) for high in range(first, last + 1) for low in range(0xA1, 0xFF))
    return [char for char in (code.decode("gb2312", "ignore") for code in codes) if char]


def _is_character(entry: str) -> bool:
    """Return whether this is one code point, and no half of a surrogate pair, which UTF-8 cannot write."""
    return len(entry) == 1 and not "\ud800" <= entry <= "\udfff"


def _require_characters(name: str, characters: list[str]) -> list[str]:
    """Return `characters`. Raises: DataError, with `name`, where there is none, or one is not one code point."""
    if not characters:
        raise DataError(f"{name}: holds no characters")
    for char in characters:
        if not _is_character(char):
            raise DataError(f"{name}: {char!r} is not one character")
    return characters


def _read_json(name: str, text: str) -> list[str]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not JSON ({error})") from None
    found = value.get("characters") if isinstance(value, dict) else value
    if not isinstance(found, str | list) or not all(isinstance(char, str) for char in found):
        raise DataError(f'{name}: expected {{"characters": "一丁…"}} or a list of single characters')
    return _require_characters(name, list(found))


# The tutorial's char_dict is a protocol-0 pickle of {character: index}. These opcodes can only build that. Any other
# (GLOBAL, REDUCE, …) could run code, so it is refused before it has any effect.
_CHAR_DICT_OPCODES = {"MARK", "DICT", "PUT", "UNICODE", "INT", "SETITEM", "STOP"}


def _read_char_dict(name: str, raw: bytes) -> list[str]:
    found: dict[int, str] = {}
    char: str | None = None
    try:
        for opcode, value, position in pickletools.genops(raw):
            if opcode.name not in _CHAR_DICT_OPCODES:
                raise DataError(
                    f"{name}: byte {position} is the pickle opcode {opcode.name}, which a char_dict never has"
                )
            if opcode.name == "UNICODE":
                # A checkout with CRLF line ends turns every key into "怀\r".
                char = str(value).rstrip("\r")
            elif opcode.name == "INT" and char is not None:
                found[int(str(value))] = char
                char = None
    except ValueError as error:
        raise DataError(f"{name}: not a readable char_dict ({error})") from None
    characters = [found[index] for index in sorted(found)]
    if sorted(found) != list(range(len(found))) or characters != sorted(set(characters)):
        raise DataError(
            f"{name}: its indices are not 0, 1, 2 … in code-point order, so its labels would change meaning"
        )
    return _require_characters(name, characters)
