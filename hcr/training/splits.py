"""What a run learns from and is validated on: splits of a pack, or handwriting drawn as it is needed.

The trainer does not know which: a split has a count, a digest for the records, and batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hcr.charset import Charset
from hcr.errors import DataError, UsageError
from hcr.feed.loader import Loader
from hcr.feed.sampler import SequentialBatches, TrainingBatches
from hcr.feed.synthetic import SyntheticBatches, generator_digest
from hcr.pack.store import PackReader
from hcr.synth import StrokeTable
from hcr.synth.fonts.glyphs import require_font
from hcr.text import counted
from hcr.training.config import Execution

Feed = Loader | SyntheticBatches
Order = TrainingBatches | SequentialBatches


@dataclass(frozen=True)
class PackSplit:
    """A split of a pack, its labels those of `charset`. Raises: DataError for a character that this lacks."""

    reader: PackReader
    charset: Charset

    def __post_init__(self) -> None:
        lacking = [char for char in self.reader.charset.characters if char not in self.charset]
        if lacking:
            raise DataError(
                f"{self.reader.path}: {_some(lacking)} not among the {counted(len(self.charset), 'character')} "
                "that are drawn; "
                "draw them too with --charset, or validate on another pack"
            )

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def digest(self) -> str:
        """The split's digest in its pack."""
        return self.reader.digest

    @property
    def sources(self) -> list[str]:
        """Digests of the source files that it was packed from: an evaluation must know what a model has seen."""
        return sorted({source["sha256"] for source in self.reader.meta["sources"]})

    def feed(self, order: Order, execution: Execution) -> Feed:
        """Return its batches in `order`, with the labels of `charset`."""
        labels = None
        if self.reader.charset != self.charset:
            labels = self.reader.charset.labels_in(self.charset)[self.reader.labels]
        return Loader(
            self.reader.path,
            order,
            workers=execution.readers,
            cache=execution.cache,
            device=execution.device,
            labels=labels,
        )


@dataclass(frozen=True)
class SyntheticSplit:
    """Handwriting of `charset` by `writers`, some of them in the forms of `fonts`, `count` pictures an epoch.

    Raises: UsageError for lacking strokes, DataError for what is no font of these characters.
    """

    charset: Charset
    count: int
    writers: range
    seed: int
    size: int
    fonts: tuple[Path, ...] = ()
    pages: float = 0.0
    taught: bool = False

    def __post_init__(self) -> None:
        table = StrokeTable.load()
        lacking = [char for char in self.charset.characters if char not in table]
        if lacking:
            raise UsageError(f"--charset: no strokes for {_some(lacking)}; leave out what cannot be drawn")
        for path in self.fonts:
            require_font(path, self.charset.characters)

    def __len__(self) -> int:
        return self.count

    @property
    def digest(self) -> str:
        """The digest of what draws it: generator, stroke table, fonts and pages."""
        return generator_digest(self.fonts, self.pages)

    @property
    def sources(self) -> list[str]:
        """No source files."""
        return []

    def feed(self, order: Order, execution: Execution) -> Feed:
        """Return its batches in `order`, drawn on the device of `execution`."""
        return SyntheticBatches(
            self.charset.characters,
            order,
            writers=self.writers,
            seed=self.seed,
            size=self.size,
            device=execution.device,
            fonts=self.fonts,
            pages=self.pages,
            taught=self.taught,
        )


Split = PackSplit | SyntheticSplit


def _some(characters: list[str]) -> str:
    """Return the first eight of the characters, and how many more there are."""
    more = f" and {len(characters) - 8} more" if len(characters) > 8 else ""
    return f"{''.join(characters[:8])!r}{more}"
