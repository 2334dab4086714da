"""Recognise what lies in files and folders: GNT, or class folders of pictures, loose or zipped, or HDF5; the splits.

Recognition goes by names alone and reads no sample, so it is quick, and a damaged file shows up only when it is packed.
Of HDF5, where names say little, it reads the labels and a few hundred pictures. What is not recognised is counted and
reported, never dropped silently; a folder that could get a wrong label is an error.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from posixpath import splitext

from hcr.charset import Charset
from hcr.corpus.archive import Folder, Listing, Place, Zip, is_unpacked
from hcr.corpus.gnt import GntPartition
from hcr.corpus.hdf5 import find_hdf5
from hcr.corpus.names import HDF5, SPLIT_WORDS, corpus_name, known_set, split_of, split_of_writer, stem
from hcr.corpus.png import PicturePartition, is_picture
from hcr.corpus.sample import Corpus, Partition
from hcr.errors import DataError, UsageError
from hcr.text import counted

_EXPECTED = "expected .gnt files, class folders of pictures, a zip of either, or an HDF5 file"
_CLOSED = "an archive that cannot be read here; unpack it and give the folder of .gnt files"


def find_corpus(paths: Sequence[Path], *, allowed: Charset | None, numbering: Charset) -> Corpus:
    """Return the corpus that lies in `paths`: files, or folders with all below them.

    Class folders must be of characters in `allowed` (None: any); numbered ones count through `numbering`, or through
    the `char_dict` file in the corpus or beside it. Hidden files are no part of a corpus, nor is an HDF5 file that lies
    among GNT files or class folders: most are a network's weights.
    Raises: DataError where a path holds nothing readable, where corpora of several kinds meet, or where a class folder
    is of no allowed character; UsageError where one path lies in another; HcrError for HDF5 without h5py.
    """
    _refuse_overlap(paths)
    finds = _Finds()
    for path, prefix in zip(paths, _prefixes(paths), strict=True):
        before = finds.count()
        _look_at(path, prefix, finds)
        if finds.count() == before:
            found = ", ".join(f"{count} {kind}" for kind, count in finds.others.most_common(5)) or "nothing"
            raise DataError(f"{path}: found {found}; {_EXPECTED}")
    partitions, layout = _recognised(finds, paths, allowed, numbering)
    name = "+".join(dict.fromkeys(corpus_name(path) for path in paths))
    return Corpus(name, layout + _ignored(finds), tuple(sorted(partitions, key=lambda partition: partition.name)))


def _recognised(
    finds: _Finds, paths: Sequence[Path], allowed: Charset | None, numbering: Charset
) -> tuple[Sequence[Partition], str]:
    """Return the partitions and a sentence about them. Raises: DataError where the finds are of several kinds."""
    hdf5 = [found for found in finds.hdf5 if found[0] in paths or not (finds.gnt or finds.classes)]
    finds.others.update(path.suffix.lower() for path, _ in finds.hdf5 if not hdf5)
    kinds = [f"{partition.name} is a GNT file" for partition in finds.gnt[:1]]
    kinds += [f"{partition.name} is a class folder of pictures" for partition in finds.classes[:1]]
    kinds += [f"{name} is an HDF5 file" for _, name in hdf5[:1]]
    if len(kinds) > 1:
        raise DataError(f"{' and '.join(kinds)}; a corpus is of one kind: give only one of them")
    if hdf5:
        files = [find_hdf5(path, name, numbering) for path, name in hdf5]
        found = [partition for partitions, _ in files for partition in partitions]
        return found, "; ".join(sentence for _, sentence in files)
    if finds.gnt:
        return finds.gnt, counted(len(finds.gnt), "GNT file") + _splits(finds.gnt)
    partitions = _with_characters(finds, allowed, numbering)
    first, folder = partitions[0].char, finds.classes[0].char
    kind = "named by their characters" if folder == first else f"numbered in code-point order ({folder} is {first})"
    return partitions, f"{counted(len(partitions), 'class folder')} of pictures, {kind}{_splits(partitions)}"


def default_sources(raw: Path) -> list[Path]:
    """Return what is packed of the folder `raw` when nothing is named: all parts of the only corpus in it.

    The archives and folders of one CASIA set are one corpus; so are loose .gnt files with train and test folders. The
    folder "drawn" counts only where there is nothing else.
    Raises: UsageError where there is none, or where there are several: its message lists them as commands.
    """
    groups: dict[str, list[Path]] = {}
    entries = sorted(raw.iterdir()) if raw.is_dir() else []
    for path in entries:
        name, kind = path.name, path.suffix.lower()
        if name.startswith(".") or (kind in (".zip", ".alz") and is_unpacked(path)):
            continue
        if (path.is_dir() and any(path.iterdir())) or kind in (".zip", ".alz", ".gnt", *HDF5):
            loose = kind == ".gnt" or stem(path).lower() in SPLIT_WORDS
            group = str(raw) if loose else (kind not in HDF5 and known_set(stem(path))[0]) or name
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
    """Return paths as a shell reads them; .gnt files, of which there may be hundreds, as one pattern."""
    written = (
        f"{shlex.quote(str(path.parent))}/*.gnt" if path.suffix.lower() == ".gnt" else shlex.quote(str(path))
        for path in paths
    )
    return " ".join(dict.fromkeys(written))


@dataclass
class _Finds:
    """What the search has found so far; a class folder's `char` is its name until all are known."""

    gnt: list[GntPartition] = field(default_factory=list)
    classes: list[PicturePartition] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    dictionaries: list[tuple[Place, str]] = field(default_factory=list)
    hdf5: list[tuple[Path, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    unpacked: list[str] = field(default_factory=list)

    def count(self) -> int:
        return len(self.gnt) + len(self.classes) + len(self.unnamed) + len(self.hdf5)


def _look_at(path: Path, prefix: str, finds: _Finds) -> None:
    """Search one path; its partitions' names start with `prefix`."""
    kind = path.suffix.lower()
    beside = path.resolve().parent
    if path.is_dir():
        _search(Folder(path), prefix, (path.resolve().name,), finds)
    elif not path.exists():
        raise DataError(f"{path}: no such file or folder; {_EXPECTED}")
    elif kind == ".zip":
        _search(Zip(path), prefix, (beside.name, stem(path)), finds)
    elif kind == ".alz":
        raise DataError(f"{path}: {_CLOSED}")
    elif kind in HDF5:
        finds.hdf5.append((path, prefix))
    elif kind == ".gnt":
        listing = Listing("", [(path.name, path.stat().st_size)])
        _sort_files(Folder(path.parent), listing, prefix.rpartition("/")[0], (beside.name,), finds)
    else:
        raise DataError(f"{path}: neither a .gnt file, a zip archive nor an HDF5 file; {_EXPECTED}")
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
            split = split_of(folders) or split_of_writer(writer)
            finds.gnt.append(GntPartition(named, split, writer, size, place, inside))
        elif kind in (".zip", ".alz") and isinstance(place, Folder) and is_unpacked(place.path / inside):
            finds.unpacked.append(named)
        elif kind in HDF5 and isinstance(place, Folder):
            finds.hdf5.append((place.path / inside, named))
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
        split = split_of(folders[:-1])
        finds.classes.append(
            PicturePartition(name or folders[-1], split, "", picture_bytes, place, listing.folder, folders[-1])
        )
    elif pictures:
        finds.unnamed.append(f"{place.path}/{listing.folder}".rstrip("/"))
        finds.others["picture"] += pictures


def _is_class(folder: str) -> bool:
    return len(folder) == 1 or (folder.isascii() and folder.isdigit())


def _with_characters(finds: _Finds, allowed: Charset | None, numbering: Charset) -> list[PicturePartition]:
    """Return the class folders, each with its character in the place of its name."""
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
    numbered = [partition for partition in finds.classes if partition.char.isascii() and partition.char.isdigit()]
    # Folders 0 to 9 among characters are characters too: HWDB has the digits among its symbols.
    by_number = len(numbered) == len(finds.classes)
    partitions = []
    for partition in finds.classes:
        where = f"{partition.place.path}/{partition.folder}"
        char = partition.char
        if by_number:
            label = int(char)
            if label >= len(numbering):
                raise DataError(
                    f"{where}: class number {label}, but the numbers count through the "
                    f"{counted(len(numbering), 'character')} of "
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
        partitions.append(replace(partition, char=char))
    return partitions


def _splits(partitions: Iterable[Partition]) -> str:
    splits = Counter(partition.split for partition in partitions)
    known = [f"{split} {count:,}" for split, count in sorted((split or "", count) for split, count in splits.items())]
    if splits[None]:
        known = [*known[1:], f"{splits[None]:,} not in a train/val/test folder"]
    return f" ({', '.join(known)})"


def _ignored(finds: _Finds) -> str:
    text = ""
    if finds.others:
        text += f"; {counted(finds.others.total(), 'other file')} ignored ({', '.join(sorted(finds.others))})"
    if finds.unpacked:
        archives = counted(len(finds.unpacked), "archive")
        text += f"; {archives} ignored, already unpacked beside it ({finds.unpacked[0]})"
    return text


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name


def _prefixes(paths: Sequence[Path]) -> list[str]:
    """Return what the partitions' names in each path start with: nothing for a single folder, else the path's name."""
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
