"""A corpus of drawn handwriting, laid out and stored like CASIA's: a GNT file a writer, below train/ and test/.

It stands in where no real corpus lies, and the rest of the program cannot tell the two apart. The settings are written
first, and each file appears under its name only when it is complete, so that an interrupted run continues where it
stopped. The price of files instead of a stream is disk: about 7 KB a picture.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hcr.charset import Charset
from hcr.corpus.gnt import encode_record
from hcr.errors import DataError, UsageError
from hcr.files import atomic_write, read_json, write_json
from hcr.stop import Progress, silent
from hcr.synth import GENERATOR_VERSION, StrokeTable, draw_pages, fonts_in_cache
from hcr.synth.fonts.glyphs import font_digest, require_font
from hcr.text import counted
from hcr.workers import usual_processes, worker_pool

SETTINGS = "drawn.json"
TEST_SHARE = 5
"""One writer in so many, the last ones, is a test writer; of two writers and more, one at least."""

_BATCH = 256  # characters drawn at a time
_WORTH_POOL = 20_000  # pictures; for fewer, starting processes takes longer than drawing


@dataclass(frozen=True)
class SyntheticCorpus:
    """What lies in the folder after a run, and how much of it this run drew."""

    folder: Path
    characters: int
    train_writers: int
    test_writers: int
    drawn_files: int


def spread(charset: Charset, n: int) -> Charset:
    """Pick `n` characters evenly spaced over a charset, the first among them.

    Raises: UsageError where n is not between 1 and the size of the charset.
    """
    if not 1 <= n <= len(charset):
        raise UsageError(f"--charset {n}: expected 1 to {len(charset):,}")
    return Charset(charset[index * len(charset) // n] for index in range(n))


def draw_corpus(
    folder: Path,
    charset: Charset,
    *,
    writers: int,
    seed: int,
    fonts: Sequence[Path] = (),
    progress: Progress = silent,
) -> SyntheticCorpus:
    """Draw each character once by each of `writers` writers into folder/train/0001.gnt … and folder/test/.

    fonts: files (TTF, OTF, WOFF2) in whose forms some of the writers write.

    Pictures are cropped to the ink; their longest side varies by writer, mostly from 60 to 110 pixels. Where there is
    much to draw, a worker pool draws on all cores. A run with the settings of an earlier one keeps what that has
    finished, and both give the same bytes. `progress` counts pictures.
    Raises: UsageError where the folder was drawn with other settings or holds something else; DataError for a character
    without strokes or without a GBK code, for what is no font, and for one that has none of the characters.
    """
    if writers < 1 or seed < 0:
        raise UsageError(f"writers {writers}, seed {seed}: expected at least 1 writer and a seed of 0 or more")
    _require_drawable(charset)
    for path in fonts:
        require_font(path, charset.characters)
    settings = {"charset": charset.digest, "writers": writers, "seed": seed, "pen": GENERATOR_VERSION}
    _settle(folder, settings | {"fonts": [font_digest(path) for path in fonts]}, charset)
    test = max(1, writers // TEST_SHARE) if writers >= 2 else 0
    names = [f"{'train' if writer <= writers - test else 'test'}/{writer:04d}.gnt" for writer in range(1, writers + 1)]
    for leftover in folder.glob("*/.*.gnt.*.tmp"):
        leftover.unlink()
    missing = [writer for writer, name in enumerate(names, 1) if not (folder / name).exists()]
    total = writers * len(charset)
    progress((writers - len(missing)) * len(charset), total)
    processes = min(usual_processes(), len(missing)) if len(missing) * len(charset) >= _WORTH_POOL else 1
    # All cores read the fonts once, before the workers start.
    shared = fonts_in_cache(charset.characters, fonts) if fonts and processes > 1 else nullcontext()
    with shared as cache, worker_pool(processes) as mapped:
        job = charset.characters, seed, tuple(fonts), cache
        tasks = [(*job, writer, folder / names[writer - 1]) for writer in missing]
        for pictures in mapped(_draw_writer, tasks):
            progress(pictures, total)
    return SyntheticCorpus(folder, len(charset), writers - test, test, len(missing))


def _require_drawable(charset: Charset) -> None:
    table = StrokeTable.load()
    for what, lacking in (
        ("strokes", [char for char in charset.characters if char not in table]),
        ("a GBK code", [char for char in charset.characters if not char.encode("gbk", "ignore")]),
    ):
        if lacking:
            more = f" and {len(lacking) - 8} more" if len(lacking) > 8 else ""
            raise DataError(
                f"charset: no {what.removeprefix('a ')} for {''.join(lacking[:8])!r}{more}; "
                f"leave {'it' if len(lacking) == 1 else 'them'} out of the charset"
            )


def _settle(folder: Path, settings: dict[str, object], charset: Charset) -> None:
    """Write the settings into an empty folder, or compare them with those that are there."""
    path = folder / SETTINGS
    if path.exists():
        found = read_json(path)
        for name, value in settings.items():
            drawn = found.get(name) if isinstance(found, dict) else None
            if drawn != value:
                raise UsageError(
                    f"{path}: {_difference(name, found, value, charset)}; choose another --out, delete this folder, or "
                    "request the same"
                )
    elif folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: holds files but no {SETTINGS}, so they were not drawn; choose another folder")
    else:
        write_json(path, settings | {"characters": charset.characters})


def _difference(name: str, found: Any, requested: Any, charset: Charset) -> str:
    """Return how the setting `name` of a drawn corpus differs from the requested one, in the user's terms.

    found: what drawn.json holds.
    """
    drawn = found.get(name) if isinstance(found, dict) else None
    if drawn is None:
        return f"no {name} there, so another program wrote it"
    if name == "charset":
        drawn, requested, noun = len(found["characters"]), len(charset), "character"
    elif name == "fonts":
        drawn, requested, noun = len(drawn), len(requested), "font"
    elif name == "writers":
        noun = "writer"
    else:
        label = {"pen": "generator version", "seed": "--seed"}[name]
        return f"drawn with {label} {drawn}, now {label} {requested}"
    others = " others" if drawn == requested else ""
    return f"{counted(drawn, noun)} there, {requested:,}{others} requested"


def _draw_writer(
    characters: str, seed: int, fonts: tuple[Path, ...], cache: Path | None, writer: int, path: Path
) -> int:
    """Draw one writer's file; return the number of its pictures. cache: of a worker process that has one of its own."""
    if cache:
        os.environ["HCR_CACHE"] = str(cache)
    with atomic_write(path) as file:
        for start in range(0, len(characters), _BATCH):
            labels = range(start, min(start + _BATCH, len(characters)))
            pictures = draw_pages(characters, labels, seed=seed, writer=writer, fonts=fonts)
            for label, picture in zip(labels, pictures, strict=True):
                file.write(encode_record(characters[label], _crop(picture)))
    return len(characters)


def _crop(picture: np.ndarray) -> np.ndarray:
    """Cut away the paper around the ink."""
    ink = picture < 255
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
