"""The generator: from labels to drawn pictures, a batch at a time, on its device.

Writers' styles make trajectories, these are placed on a square, and the renderer inks them. On a CPU a batch is cut
into runs whose arrays stay in a core's cache, 128 pictures of 64 pixels: twice as fast as four times as many at once.
On a GPU runs are as large as its memory allows, and nothing waits for the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from hcr.synth.copybook import Copybook, make_copybook
from hcr.synth.fonts import cache
from hcr.synth.fonts.glyphs import Forms, font_digest, make_forms
from hcr.synth.fonts.retrace import retrace
from hcr.synth.ragged import spare, spread
from hcr.synth.render import render
from hcr.synth.rng import keyed, length, uniform
from hcr.synth.running import RunningForms
from hcr.synth.style import Manner, WriterStyles
from hcr.synth.trajectory import Trajectory, write

BOX = 0.8
"""Side of the character's box in sides of a picture that `draw_page` gives; only what would stick out is smaller."""

SHARE = 0.25
"""How many of the writers write in the forms of a font, where fonts are given."""

_FONT = 4  # what the number that decides so is drawn for
_RUN_PIXELS = {"cpu": 1 << 19}
_RUN_PIXELS_ELSEWHERE = 1 << 25
_SMALLEST = 0.05  # of a box, ink that still fills the square: an end to what a dot is blown up
_COVERED = 0.4  # of the square around the ink, at most: a pen that would blacken more is thinner
_FIXED = 1 << 16
_RIM = 1.5  # pixels of paper around the ink of a page


class Generator:
    """Draws the handwriting of a charset.

    characters: label order.
    fonts: files (TTF, OTF, WOFF2). SHARE of the writers write in the forms of one of them, but for characters that it
    lacks. Reading fonts takes minutes the first time, and is kept in a cache (`fonts/cache.py`).

    A picture is a function of the fonts, in their order, and of (seed, writer, character, number, size). On a CPU it is
    the same to the bit whatever the other characters, the batch and the threads. A GPU differs by at most 2 of 255.
    Raises: DataError for a character without strokes, for what is no font, and for one that has none of the characters.
    """

    def __init__(self, characters: str, device: str | torch.device = "cpu", fonts: Sequence[Path] = ()) -> None:
        self.device = torch.device(device)
        self._fonts = len(fonts)
        forms, book = _read(characters, fonts) if fonts else (None, make_copybook(characters))
        self._forms, self._book = forms and forms.to(self.device), book.to(self.device)
        self.classes = len(characters)
        self._running = RunningForms(characters, self.device)

    def draw(self, labels: Tensor, writers: Tensor, numbers: Tensor, *, seed: int, size: int) -> Tensor:
        """Draw each label as a writer writes it for the n-th time: uint8[B, 1, size, size], 255 = paper.

        The ink fills the square as `hcr.preprocess.fit.fit_square` would have it, within about a pixel.
        labels, writers, numbers: int64[B]; labels and writers in memory, else the host waits for the device. seed,
        writers and numbers are 0 or more, below 2**32.
        """
        return self._drawn(labels, writers, numbers, seed, size, fitted=True)[:, None]

    def draw_page(self, labels: Tensor, writers: Tensor, numbers: Tensor, *, seed: int, size: int) -> Tensor:
        """Draw as `draw` does, but in the size in which it is written: uint8[B, size, size], ink centred.

        The box of a character is BOX sides of the picture.
        """
        return self._drawn(labels, writers, numbers, seed, size, fitted=False)

    def write(
        self, labels: Tensor, writers: Tensor, numbers: Tensor, *, seed: int, manner: Manner, quick: Tensor
    ) -> tuple[Trajectory, WriterStyles]:
        """Return the trajectories that `draw` would ink, their `picture` in any order, and the B styles.

        Pens that would blacken more of a character than they may are thinner already. labels, writers, numbers: in
        memory. manner: of the B pictures. quick: bool[B], in memory, what is written in a form of `running.py`.
        """
        quick = quick & (self._running.count[labels] > 0)
        parts = [(~quick).nonzero().squeeze(1), quick.nonzero().squeeze(1)]
        trajectories: list[Trajectory] = []
        all_styles: list[WriterStyles] = []
        for index, written in zip(parts, (self._write, self._running.write), strict=True):
            if len(index):
                device_index = index.to(self.device, non_blocking=True)
                trajectory, styles = written(
                    labels[index], writers[index], numbers[index], seed=seed, manner=manner.taken(device_index)
                )
                low, high = _bounds(trajectory.points, trajectory.points, trajectory, len(index))
                width = trajectory.width * _thinner(trajectory, (high - low).amax(1))[trajectory.picture]
                ahead = trajectories[-1].path[-1] + 1 if trajectories else 0
                trajectories.append(
                    trajectory._replace(
                        width=width, picture=device_index[trajectory.picture], path=trajectory.path + ahead
                    )
                )
                all_styles.append(styles)
        back = torch.cat(parts).argsort().to(self.device, non_blocking=True)
        joined = Trajectory(*(torch.cat(each) for each in zip(*trajectories, strict=True)))
        return joined, WriterStyles.joined(all_styles, back)

    def _write(
        self, labels: Tensor, writers: Tensor, numbers: Tensor, *, seed: int, manner: Manner
    ) -> tuple[Trajectory, WriterStyles]:
        glyphs = self._glyphs(labels, writers, seed)
        # Those that are written after strokes come first.
        order = (glyphs >= 0).int().argsort(stable=True)
        device_order, back = (each.to(self.device, non_blocking=True) for each in (order, order.argsort()))
        device_labels, device_writers, device_numbers = (
            each[order].to(self.device, non_blocking=True) for each in (labels, writers, numbers)
        )
        codes = self._book.codes[device_labels]
        styles = WriterStyles(seed, device_writers, codes, device_numbers, manner.taken(device_order))
        trajectory = self._path(labels[order], device_labels, glyphs[order], styles)
        return trajectory._replace(picture=device_order[trajectory.picture]), WriterStyles.joined([styles], back)

    def _drawn(self, labels: Tensor, writers: Tensor, numbers: Tensor, seed: int, size: int, *, fitted: bool) -> Tensor:
        out = torch.empty(len(labels), size, size, dtype=torch.uint8, device=self.device)
        run_length = max(1, _RUN_PIXELS.get(self.device.type, _RUN_PIXELS_ELSEWHERE) // size**2)
        labels, glyphs = labels.cpu(), self._glyphs(labels.cpu(), writers, seed)
        for run in torch.arange(len(labels)).split(run_length):
            # Those that are written after strokes come first.
            run = run[(glyphs[run] >= 0).int().argsort(stable=True)]
            device_labels, device_writers, device_numbers = (
                each[run].to(self.device, non_blocking=True) for each in (labels, writers, numbers)
            )
            styles = WriterStyles(seed, device_writers, self._book.codes[device_labels], device_numbers)
            trajectory = self._path(labels[run], device_labels, glyphs[run], styles)
            x, y, width = _placed(trajectory, len(run), size, fitted)
            out[run.to(self.device, non_blocking=True)] = render(
                x,
                y,
                width,
                trajectory.ink,
                trajectory.path,
                trajectory.picture,
                styles.grain,
                styles.spot,
                styles.soft,
                size=size,
            )
        return out

    def _glyphs(self, labels: Tensor, writers: Tensor, seed: int) -> Tensor:
        """Return the glyph that each picture is written after, -1 for strokes: int64[B] in memory."""
        if self._forms is None:
            return torch.full_like(labels, -1)
        writers = writers.cpu()
        chance = uniform(keyed(seed, writers, writers * 0 + _FONT), 2)
        font = (chance[:, 1] * self._fonts).long().clamp(max=self._fonts - 1)
        glyphs = font * len(self._book.codes) + labels
        return torch.where((chance[:, 0] < SHARE) & (self._forms.host_rows[glyphs] > 0), glyphs, -1)

    def _path(self, labels: Tensor, device_labels: Tensor, glyphs: Tensor, styles: WriterStyles) -> Trajectory:
        """Return the trajectories of a run, first those of characters by strokes, then those after glyphs.

        labels: int64[B] in memory; device_labels: the same on the device.
        """
        count, strokes = len(labels), int((glyphs < 0).sum())
        trajectories = []
        if strokes:
            rows = int(self._book.host_rows[labels[:strokes]].sum())
            trajectories.append(write(self._book, device_labels[:strokes], rows, styles.part(0, strokes)))
        if self._forms is not None and strokes < count:
            rows, after = int(self._forms.host_rows[glyphs[strokes:]].sum()), glyphs[strokes:]
            part = styles.part(strokes, count)
            trajectory = retrace(self._forms, after.to(self.device, non_blocking=True), rows, part)
            first_path = trajectories[0].path[-1] + 1 if trajectories else 0
            trajectories.append(
                trajectory._replace(path=trajectory.path + first_path, picture=trajectory.picture + strokes)
            )
        return (
            trajectories[0]
            if len(trajectories) == 1
            else Trajectory(*(torch.cat(parts) for parts in zip(*trajectories, strict=True)))
        )


def _read(characters: str, fonts: Sequence[Path]) -> tuple[Forms, Copybook]:
    """Read fonts, or take from the cache what an earlier start read."""
    digests = [font_digest(path) for path in fonts]
    key = cache.key_of(digests, characters)
    if arrays := cache.load(key):
        kept = {name: torch.from_numpy(array) for name, array in arrays.items()}
        forms = Forms(*(kept[f"forms.{field}"] for field in Forms._fields))
        return forms, Copybook(*(kept[f"copybook.{field}"] for field in Copybook._fields))
    forms = make_forms(fonts, characters)
    book = make_copybook(characters, forms)
    # A font that was replaced meanwhile would stand under the digest of the other one.
    if digests == [font_digest(path) for path in fonts]:
        _keep(key, forms, book)
    return forms, book


def _keep(key: str, forms: Forms, book: Copybook, folder: Path | None = None) -> None:
    made = {f"forms.{field}": tensor for field, tensor in forms._asdict().items()}
    made |= {f"copybook.{field}": tensor for field, tensor in book._asdict().items()}
    cache.save(key, {name: tensor.numpy() for name, tensor in made.items()}, folder)


@contextmanager
def fonts_in_cache(characters: str, fonts: Sequence[Path]) -> Iterator[Path | None]:
    """Read fonts once for worker processes; yield the cache in which these find them, None where it is the user's.

    Where the user's cannot be written it is a temporary folder, which is then removed.
    """
    key = cache.key_of([font_digest(path) for path in fonts], characters)
    forms, book = _read(characters, fonts)
    if cache.load(key):
        del forms, book  # hundreds of megabytes
        yield None
        return
    with TemporaryDirectory(prefix="hcr-") as folder:
        _keep(key, forms, book, Path(folder))
        del forms, book
        yield Path(folder)


def draw_pages(
    characters: str, labels: Sequence[int], *, seed: int, writer: int, fonts: Sequence[Path] = ()
) -> np.ndarray:
    """Draw labels of a charset as one writer has them on paper at 300 dpi: uint8[B, size, size], ink centred.

    For callers without torch. The generator of the last charset and fonts is kept.
    """
    one = torch.tensor([writer])
    size = round(float(WriterStyles(seed, one, one, one).height) / BOX)
    chosen = torch.as_tensor(labels)
    writers = torch.full_like(chosen, writer)
    return (
        _generator(characters, tuple(fonts))
        .draw_page(chosen, writers, torch.zeros_like(writers), seed=seed, size=size)
        .numpy()
    )


@lru_cache(maxsize=1)
def _generator(characters: str, fonts: tuple[Path, ...]) -> Generator:
    return Generator(characters, fonts=fonts)


def _placed(trajectory: Trajectory, count: int, size: int, fitted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Put each character's ink into the middle of its picture: x, y and width in pixels."""
    points, picture = trajectory.points, trajectory.picture
    low, high = _bounds(points, points, trajectory, count)
    width = trajectory.width * _thinner(trajectory, (high - low).amax(1))[picture]
    reach = 0.5 * width[:, None]
    low, high = _bounds(points - reach, points + reach, trajectory, count)
    extent = (high - low).amax(1)
    most = size - 2 * (round(size / 16) if fitted else _RIM)
    scale = (most / extent).clamp(max=size * (1 / _SMALLEST if fitted else BOX))
    centre = 0.5 * (low + high)
    scales = scale[picture]
    x, y = ((points[:, axis] - centre[:, axis][picture]) * scales + size / 2 for axis in (0, 1))
    return x, y, width * scales


def _bounds(low: Tensor, high: Tensor, trajectory: Trajectory, count: int) -> tuple[Tensor, Tensor]:
    """Return the least of `low` and the greatest of `high` in each picture: float32[B, 2] each."""
    values = spare(torch.cat([-low, high], 1), trajectory.valid, -torch.inf)
    place = spread(trajectory.picture, trajectory.valid, count)[:, None].expand(-1, 4)
    most = low.new_full((count, 4), -torch.inf).scatter_reduce_(0, place, values, "amax")
    return -most[:, :2], most[:, 2:]


def _thinner(trajectory: Trajectory, extent: Tensor) -> Tensor:
    """Return by how much each picture's pen is thinner than its writer's style would have it: float32[B], 0-1."""
    step = trajectory.points[1:] - trajectory.points[:-1]
    area = length(step[:, 0], step[:, 1]) * trajectory.width[1:] * (trajectory.path[1:] == trajectory.path[:-1])
    covered = torch.zeros(len(extent), dtype=torch.int64, device=extent.device)
    place = spread(trajectory.picture[1:], trajectory.valid[1:], len(extent))
    covered.index_add_(0, place, (area * _FIXED).long())
    return (_COVERED * _FIXED * extent * extent / covered.clamp(min=1)).clamp(max=1)
