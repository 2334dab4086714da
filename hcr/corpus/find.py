"""Recognise what lies in files and folders: GNT, or class folders of pictures, loose or zipped, with their splits.

Recognition goes by names alone and reads no sample, so it is quick and a damaged file shows up only when it is packed.
What is not recognised is counted and said, never dropped silently; a folder that could get a wrong label is an error.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from posixpath import splitext

from hcr.charset import Charset
from hcr.corpus.archive import Folder, Listing, Place, Zip, is_unpacked
from hcr.corpus.gnt import GntUnit
from hcr.corpus.png import PngUnit, is_picture
from hcr.corpus.sample import Corpus, Unit
from hcr.errors import DataError, UsageError

_EXPECTED = "expected .gnt files, class folders of pictures, or a zip of either"
_CLOSED = "an archive that cannot be read here; unpack it and give the folder of .gnt files"
_SPLIT_WORDS = {"train": "train", "trn": "train", "training": "train", "test": "test", "tst": "test", "testing": "test"}
_SPLIT_WORDS |= {"val": "val", "validation": "val"}
# HWDB1.1trn_gnt, HWDB1.1trn_gnt_P1, Gnt1.0TrainPart1 …: archives of CASIA-HWDB and the folders that they unpack to.
_HWDB = re.compile(
    r"(?:casia[-_ ]?)?(?:hwdb|gnt)[-_ ]?(1\.[012])[-_ ]?(train|trn|test|tst)?(?:[-_ ]?gnt)?(?:[-_ ]?(?:part|p)\d+)?",
    re.IGNORECASE,
)
_COMPETITION = re.compile(r"competition(?:[-_ ]?gnt)?", re.IGNORECASE)


def find_corpus(paths: Sequence[Path], *, allowed: Charset | None, numbering: Charset) -> Corpus:
    """Recognise the corpus that lies in `paths`: files, or folders with all below them.

    Class folders must be of characters in `allowed` (None: any); numbered ones count through `numbering`, or through
    the `char_dict` file in the corpus or beside it. Hidden files are no part of a corpus.
    Raises: DataError where a path holds nothing readable, where GNT and class folders meet, or where a class folder
    is of no allowed character; UsageError where one path lies in another.
    """
    _refuse_overlap(paths)
    finds = _Finds()
    for path, prefix in zip(paths, _prefixes(paths), strict=True):
        before = finds.count()
        _look_at(path, prefix, finds)
        if finds.count() == before:
            found = ", ".join(f"{count} {kind}" for kind, count in finds.others.most_common(5)) or "nothing"
            raise DataError(f"{path}: found {found}; {_EXPECTED}")
    if finds.gnt and finds.classes:
        raise DataError(
            f"{finds.gnt[0].name} is a GNT file and {finds.classes[0].name} a class folder of pictures; "
            "a corpus is one or the other: give only one of them"
        )
    units: list[GntUnit] | list[PngUnit] = finds.gnt
    layout = _several(len(finds.gnt), "GNT file")
    if not finds.gnt:
        units = _with_characters(finds, allowed, numbering)
        first, folder = units[0].char, finds.classes[0].char
        kind = "named by their characters" if folder == first else f"numbered in code-point order ({folder} is {first})"
        layout = f"{_several(len(units), 'class folder')} of pictures, {kind}"
    name = "+".join(dict.fromkeys(_corpus_name(path) for path in paths))
    return Corpus(name, layout + _remarks(units, finds), tuple(sorted(units, key=lambda unit: unit.name)))


def default_sources(raw: Path) -> list[Path]:
    """Give what is to be packed of the folder `raw` when nothing is named: all parts of the only corpus in it.

    The archives and folders of one CASIA set are one corpus, so are loose .gnt files and train and test folders; the
    folder "drawn" counts only where there is nothing else.
    Raises: UsageError where there is none, or where there are several: its message lists them as commands.
    """
    groups: dict[str, list[Path]] = {}
    entries = sorted(raw.iterdir()) if raw.is_dir() else []
    for path in entries:
        name, kind = path.name, path.suffix.lower()
        if name.startswith(".") or (kind in (".zip", ".alz") and is_unpacked(path)):
            continue
        if (path.is_dir() and any(path.iterdir())) or kind in (".zip", ".alz", ".gnt"):
            loose = kind == ".gnt" or _stem(path).lower() in _SPLIT_WORDS
            group = str(raw) if loose else _known_set(_stem(path))[0] or name
            groups.setdefault(group, []).append(path)
    if len(groups) > 1:
        groups.pop("drawn", None)
    if not groups:
        raise UsageError(f"{raw}: no corpus here; run `make dataset` to draw one, or put archives of CASIA-HWDB there")
    if len(groups) > 1:
        commands = (f"`hcr-data pack {_arguments(paths)}`" for paths in groups.values())
        raise UsageError(f"{raw}: holds {len(groups)} corpora; choose one: {', or '.join(commands)}")
    return next(iter(groups.values()))


def _arguments(paths: Iterable[Path]) -> str:
    """Write paths for a shell; .gnt files, of which there may be hundreds, as one pattern."""
    written = (
        f"{shlex.quote(str(path.parent))}/*.gnt" if path.suffix.lower() == ".gnt" else shlex.quote(str(path))
        for path in paths
    )
    return " ".join(dict.fromkeys(written))


@dataclass
class _Finds:
    """What the search has met so far; a class folder's `char` is its name until all are known."""

    gnt: list[GntUnit] = field(default_factory=list)
    classes: list[PngUnit] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    dictionaries: list[tuple[Place, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    unpacked: list[str] = field(default_factory=list)

    def count(self) -> int:
        return len(self.gnt) + len(self.classes) + len(self.unnamed)


def _look_at(path: Path, prefix: str, finds: _Finds) -> None:
    """Search one path; its units' names start with `prefix`."""
    kind = path.suffix.lower()
    beside = path.resolve().parent
    if path.is_dir():
        _search(Folder(path), prefix, (path.resolve().name,), finds)
    elif not path.exists():
        raise DataError(f"{path}: no such file or folder; {_EXPECTED}")
    elif kind == ".zip":
        _search(Zip(path), prefix, (beside.name, _stem(path)), finds)
    elif kind == ".alz":
        raise DataError(f"{path}: {_CLOSED}")
    elif kind == ".gnt":
        listing = Listing("", [(path.name, path.stat().st_size)])
        _sort_files(Folder(path.parent), listing, prefix.rpartition("/")[0], (beside.name,), finds)
    else:
        raise DataError(f"{path}: neither a .gnt file nor a zip archive; {_EXPECTED}")
    if (beside / "char_dict").is_file():
        finds.dictionaries.append((Folder(beside), "char_dict"))


def _search(place: Place, prefix: str, above: tuple[str, ...], finds: _Finds) -> None:
    for listing in place.walk():
        folders = (*above, *PurePosixPath(listing.folder).parts)
        _sort_files(place, listing, _join(prefix, listing.folder), folders, finds)


def _sort_files(place: Place, listing: Listing, name: str, folders: tuple[str, ...], finds: _Finds) -> None:
    """Sort the files of one folder; `name` is the folder's, `folders` are the names of it and of those above it."""
    closed: list[str] = []
    has_gnt = False
    pictures = 0
    picture_bytes = 0
    for file, size in listing.files:
        if is_picture(file):
            pictures += 1
            picture_bytes += size
            continue
        kind = splitext(file)[1].lower()
        inside, named = _join(listing.folder, file), _join(name, file)
        if kind == ".gnt":
            has_gnt = True
            writer = file[: -len(kind)]
            split = _split_of(folders) or _split_of_writer(writer)
            finds.gnt.append(GntUnit(named, split, writer, size, place, inside))
        elif kind in (".zip", ".alz") and isinstance(place, Folder) and is_unpacked(place.path / inside):
            finds.unpacked.append(named)
        elif kind == ".zip" and isinstance(place, Folder):
            _search(Zip(place.path / inside), named, (*folders, file[: -len(kind)]), finds)
        elif file == "char_dict":
            finds.dictionaries.append((place, inside))
        else:
            finds.others[kind or file] += 1
            if kind in (".zip", ".alz"):
                closed.append(f"{place.path}/{inside}")
    if closed and not has_gnt:
        raise DataError(f"{closed[0]}: {_CLOSED}")
    if pictures and _is_class(folders[-1]):
        split = _split_of(folders[:-1])
        finds.classes.append(PngUnit(name or folders[-1], split, "", picture_bytes, place, listing.folder, folders[-1]))
    elif pictures:
        finds.unnamed.append(f"{place.path}/{listing.folder}".rstrip("/"))
        finds.others["picture"] += pictures


def _is_class(folder: str) -> bool:
    return len(folder) == 1 or (folder.isascii() and folder.isdigit())


def _with_characters(finds: _Finds, allowed: Charset | None, numbering: Charset) -> list[PngUnit]:
    """Put each class folder's character in the place of its name."""
    if finds.unnamed:
        raise DataError(
            f"{finds.unnamed[0]}: pictures in a folder whose name is neither a character nor a number; "
            "name class folders so, and take other pictures out"
        )
    source = "the charset"
    dictionaries = {f"{place.path}/{file}": (place, file) for place, file in finds.dictionaries}
    charsets = {name: Charset.parse(place.read(file), name) for name, (place, file) in dictionaries.items()}
    for name, charset in charsets.items():
        if source in charsets:
            charset.require_same(numbering, name, source)
        source, numbering = name, charset
    numbered = [unit for unit in finds.classes if unit.char.isascii() and unit.char.isdigit()]
    # Folders 0 to 9 among characters are characters too: HWDB has the digits among its symbols.
    by_number = len(numbered) == len(finds.classes)
    units = []
    for unit in finds.classes:
        where = f"{unit.place.path}/{unit.folder}"
        char = unit.char
        if by_number:
            label = int(char)
            if label >= len(numbering):
                raise DataError(
                    f"{where}: class number {label}, but the numbers count through the {len(numbering)} characters of "
                    f"{source}, 0 to {len(numbering) - 1}; name the charset that they number with --charset"
                )
            char = numbering[label]
        elif len(char) > 1:
            raise DataError(f"{where}: a numbered class folder among folders named by a character; give one kind alone")
        if allowed is not None and char not in allowed:
            raise DataError(
                f"{where}: its character {char} is not among the {len(allowed)} of the charset; "
                "choose a wider one with --charset, or take the folder out"
            )
        units.append(replace(unit, char=char))
    return units


def _remarks(units: Iterable[Unit], finds: _Finds) -> str:
    """Say how the units fall into splits, and what was passed over."""
    splits = Counter(unit.split or "no split named" for unit in units)
    text = f" ({', '.join(f'{split} {count:,}' for split, count in sorted(splits.items()))})"
    if finds.others:
        text += f"; {_several(finds.others.total(), 'other file')} passed over ({', '.join(sorted(finds.others))})"
    if finds.unpacked:
        archives = _several(len(finds.unpacked), "archive")
        text += f"; {archives} passed over, unpacked beside ({finds.unpacked[0]})"
    return text


def _several(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _known_set(name: str) -> tuple[str | None, str | None]:
    """Give the CASIA set and the split that a folder or archive of this name holds, as far as its name says."""
    if match := _HWDB.fullmatch(name):
        return f"hwdb{match[1]}", _SPLIT_WORDS.get((match[2] or "").lower())
    return ("competition", "test") if _COMPETITION.fullmatch(name) else (None, None)


def _split_of(folders: Sequence[str]) -> str | None:
    """Give the split that the nearest folder or archive names."""
    splits = (_SPLIT_WORDS.get(folder.lower()) or _known_set(folder)[1] for folder in reversed(folders))
    return next(filter(None, splits), None)


def _split_of_writer(stem: str) -> str | None:
    """Tell the official split by the writer where no folder does: HWDB1.1 is 1001 to 1300, the last 60 of them test."""
    if match := re.fullmatch(r"(1\d{3})-[a-z]", stem):
        number = int(match[1])
        return "train" if 1001 <= number <= 1240 else "test" if 1241 <= number <= 1300 else None
    return "test" if re.fullmatch(r"C\d{3}-[a-z]", stem) else None


def _corpus_name(path: Path) -> str:
    path = path.resolve()
    if path.suffix.lower() == ".gnt":
        path = path.parent
    if _stem(path).lower() in _SPLIT_WORDS:
        path = path.parent
    return _known_set(_stem(path))[0] or _stem(path) or "corpus"


def _stem(path: Path) -> str:
    return path.name[:-4] if path.suffix.lower() in (".zip", ".alz") else path.name


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name


def _prefixes(paths: Sequence[Path]) -> list[str]:
    """What the names of the units in each path start with: nothing for one folder alone, else the path's name."""
    if len(paths) == 1 and paths[0].is_dir():
        return [""]
    names = [path.resolve().name for path in paths]
    return names if len(set(names)) == len(names) else [path.as_posix() for path in paths]


def _refuse_overlap(paths: Sequence[Path]) -> None:
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise UsageError(f"{path}: given twice, so its samples would count twice")
        seen.add(path.resolve())
    for path in paths:
        if inside := seen.intersection(path.resolve().parents):
            raise UsageError(f"{path}: lies in {min(inside)}, so its samples would count twice; give only one of them")
