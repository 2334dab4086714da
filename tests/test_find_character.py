"""The character is found on every kind of page: its square is nearly that of the plain picture."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from hcr.charset import Charset
from hcr.corpus.find import find_corpus
from hcr.pack import writer
from hcr.pack.packer import PackConfig, pack
from hcr.pack.store import open_reader
from hcr.preprocess.fit import _VERSION_2, candidate_squares, fit_square, is_compatible, readings, to_paper
from hcr.preprocess.lines import find_lines

SIDE, SIZE = 300, 64
PAPER, DESK, INK = (250, 249, 246), (70, 45, 30), (25, 25, 30)
RED, GREEN, BLUE, GREY = (220, 60, 60), (60, 150, 80), (70, 110, 190), (110, 110, 110)

Stroke = list[tuple[float, float]]
# A hand's strokes are never quite level, straight or upright.
LEVEL: dict[str, list[Stroke]] = {
    "一": [[(0.05, 0.52), (0.5, 0.5), (0.97, 0.47)]],
    "二": [[(0.2, 0.22), (0.8, 0.2)], [(0.03, 0.8), (0.97, 0.78)]],
    "三": [[(0.15, 0.15), (0.85, 0.12)], [(0.22, 0.5), (0.78, 0.47)], [(0.02, 0.88), (0.98, 0.85)]],
    "十": [[(0.05, 0.42), (0.96, 0.38)], [(0.5, 0.02), (0.49, 0.98)]],
    "工": [[(0.15, 0.15), (0.85, 0.13)], [(0.5, 0.14), (0.5, 0.85)], [(0.03, 0.87), (0.97, 0.85)]],
    "王": [
        [(0.15, 0.1), (0.85, 0.08)],
        [(0.2, 0.48), (0.8, 0.46)],
        [(0.5, 0.1), (0.5, 0.9)],
        [(0.03, 0.92), (0.97, 0.9)],
    ],
    "口": [[(0.15, 0.2), (0.2, 0.85)], [(0.15, 0.2), (0.85, 0.17), (0.8, 0.83)], [(0.2, 0.8), (0.8, 0.78)]],
    "日": [
        [(0.25, 0.05), (0.25, 0.97)],
        [(0.25, 0.07), (0.77, 0.05), (0.76, 0.96)],
        [(0.25, 0.5), (0.75, 0.48)],
        [(0.25, 0.93), (0.75, 0.92)],
    ],
    "田": [
        [(0.1, 0.12), (0.12, 0.92)],
        [(0.1, 0.13), (0.9, 0.1), (0.88, 0.9)],
        [(0.5, 0.12), (0.5, 0.9)],
        [(0.12, 0.51), (0.88, 0.49)],
        [(0.12, 0.9), (0.88, 0.88)],
    ],
    "国": [
        [(0.1, 0.08), (0.12, 0.95)],
        [(0.1, 0.09), (0.9, 0.06), (0.89, 0.95)],
        [(0.3, 0.3), (0.7, 0.28)],
        [(0.32, 0.5), (0.68, 0.49)],
        [(0.5, 0.3), (0.5, 0.73)],
        [(0.25, 0.74), (0.75, 0.72)],
        [(0.6, 0.58), (0.66, 0.65)],
        [(0.12, 0.92), (0.88, 0.9)],
    ],
}
OTHERS: dict[str, list[Stroke]] = {
    "儿": [
        [(0.3, 0.05), (0.28, 0.5), (0.02, 0.95)],
        [(0.55, 0.05), (0.57, 0.85), (0.7, 0.95), (0.95, 0.93), (0.98, 0.6)],
    ],
    "天": [
        [(0.2, 0.15), (0.8, 0.12)],
        [(0.08, 0.45), (0.92, 0.42)],
        [(0.5, 0.14), (0.42, 0.55), (0.05, 0.95)],
        [(0.5, 0.45), (0.7, 0.75), (0.97, 0.93)],
    ],
    "必": [
        [(0.12, 0.5), (0.05, 0.75)],
        [(0.3, 0.35), (0.35, 0.85), (0.7, 0.88), (0.75, 0.7)],
        [(0.42, 0.15), (0.52, 0.28)],
        [(0.85, 0.4), (0.95, 0.58)],
        [(0.8, 0.08), (0.5, 0.55), (0.1, 0.93)],
    ],
}
CHARACTERS = LEVEL | OTHERS


def draw(char: str, side: int = 200, pen: float = 9) -> np.ndarray:
    """Draw strokes of a round pen, black with soft edges: opacity float32[SIDE, SIDE, 1], `side` px in the middle."""
    scale, margin = 4, (SIDE - side) / 2
    image = Image.new("L", (SIDE * scale, SIDE * scale), 0)
    canvas = ImageDraw.Draw(image)
    for stroke in CHARACTERS[char]:
        points = [((margin + x * side) * scale, (margin + y * side) * scale) for x, y in stroke]
        canvas.line(points, fill=255, width=round(pen * scale), joint="curve")
        for x, y in points:
            half = pen * scale / 2
            canvas.ellipse((x - half, y - half, x + half, y + half), fill=255)
    return np.asarray(image.reduce(scale), np.float32)[..., None] / 255


def sheet(tone: tuple[int, int, int] = PAPER) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), tone, np.float32)


def write(ink: np.ndarray, ground: np.ndarray, colour: tuple[int, int, int] = INK) -> np.ndarray:
    return ground * (1 - ink) + np.float32(colour) * ink


def scan(scene: np.ndarray) -> Image.Image:
    return Image.fromarray(scene.clip(0, 255).round().astype(np.uint8))


def photo(scene: np.ndarray) -> Image.Image:
    file = io.BytesIO()
    scan(scene + np.random.default_rng(3).normal(0, 2, scene.shape)).save(file, "JPEG", quality=88)
    return Image.open(file).convert("RGB")


def printed(draw_lines: Callable[[ImageDraw.ImageDraw], None], turn: float = 0.0) -> np.ndarray:
    image = Image.new("RGB", (2 * SIDE, 2 * SIDE), PAPER)
    draw_lines(ImageDraw.Draw(image))
    return np.asarray(image.rotate(turn, Image.Resampling.BICUBIC, fillcolor=PAPER).reduce(2), np.float32)


def grid(colour: tuple[int, int, int], *, diagonals: bool = False, turn: float = 0.4) -> np.ndarray:
    def lines(on: ImageDraw.ImageDraw) -> None:
        low, high, middle = 16, 2 * SIDE - 17, SIDE
        on.rectangle((low, low, high, high), outline=colour, width=4)
        for start in range(low, high, 32):
            on.line((start, middle, start + 16, middle), fill=colour, width=2)
            on.line((middle, start, middle, start + 16), fill=colour, width=2)
        if diagonals:
            on.line((low, low, high, high), fill=colour, width=2)
            on.line((high, low, low, high), fill=colour, width=2)

    return printed(lines, turn)


def ruled(colour: tuple[int, int, int], width: int, turn: float = 0.4) -> np.ndarray:
    def lines(on: ImageDraw.ImageDraw) -> None:
        for row in (40, 260, 480):
            on.line((-40, row, 2 * SIDE + 40, row), fill=colour, width=2 * width)

    return printed(lines, turn)


def bordered(
    left: int, top: int, right: int, bottom: int, tone: tuple[int, int, int], paper: tuple[int, int, int]
) -> np.ndarray:
    ground = sheet(tone)
    ground[top : SIDE - bottom, left : SIDE - right] = paper
    return ground


def desk_around(ink: np.ndarray) -> Image.Image:
    desk = Image.new("RGB", (2 * SIDE, 2 * SIDE), DESK)
    page = scan(write(ink, sheet())).convert("RGBA").rotate(0.7, Image.Resampling.BICUBIC, True)
    desk.paste(page, (SIDE // 2, SIDE // 2), page)
    return photo(np.asarray(desk, np.float32))


def framed(ink: np.ndarray) -> Image.Image:
    image = scan(write(ink, sheet((255, 255, 255))))
    ImageDraw.Draw(image).rectangle((9, 9, SIDE - 10, SIDE - 10), outline=(0, 0, 0), width=2)
    return image


def toolbar(ink: np.ndarray) -> Image.Image:
    image = scan(write(ink, sheet((255, 255, 255))))
    canvas = ImageDraw.Draw(image)
    canvas.rectangle((0, 0, SIDE, 24), fill=(225, 225, 228))
    for left in range(8, SIDE - 20, 26):
        canvas.rectangle((left, 5, left + 14, 19), outline=(60, 60, 60), width=2)
    return image


def marked(
    ink: np.ndarray, *boxes: tuple[int, int, int, int], paper: tuple[int, int, int] = (255, 255, 255)
) -> np.ndarray:
    scene = write(ink, sheet(paper))
    for left, top, right, bottom in boxes:
        scene[top:bottom, left:right] = 40
    return scene


def shadow(ink: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return write(ink, sheet()) * (0.47 + 0.53 * np.clip((x + 0.4 * y - 200) / 2, 0, 1))[..., None]


def finger(ink: np.ndarray) -> np.ndarray:
    mask = Image.new("L", (SIDE, SIDE), 255)
    ImageDraw.Draw(mask).line((150, SIDE + 40, 135, 110), fill=130, width=60)
    return write(ink, sheet()) * (np.asarray(mask.filter(ImageFilter.GaussianBlur(2)), np.float32) / 255)[..., None]


WHITE = (255, 255, 255)
PAGES: dict[str, Callable[[np.ndarray], Image.Image]] = {
    "scan": lambda ink: scan(write(ink, sheet(WHITE))),
    "photo": lambda ink: photo(write(ink, sheet())),
    "frame": lambda ink: scan(write(ink, bordered(3, 3, 3, 3, (0, 0, 0), WHITE))),
    "frame inside": framed,
    "scanner's edge": lambda ink: scan(write(ink, bordered(0, 0, 4, 0, (40, 40, 40), WHITE))),
    "toolbar": toolbar,
    "desk, all sides": lambda ink: photo(write(ink, bordered(20, 20, 20, 20, DESK, PAPER))),
    "desk, left": lambda ink: photo(write(ink, bordered(30, 0, 0, 0, DESK, PAPER))),
    "desk, around": desk_around,
    "red grid": lambda ink: photo(write(ink, grid(RED))),
    "red grid, scan": lambda ink: scan(write(ink, grid(RED))),
    "red grid, diagonals": lambda ink: photo(write(ink, grid(RED, diagonals=True))),
    "green grid": lambda ink: photo(write(ink, grid(GREEN))),
    "blue grid": lambda ink: photo(write(ink, grid(BLUE, diagonals=True))),
    "grey grid": lambda ink: photo(write(ink, grid(GREY, diagonals=True))),
    "blue ink, red grid": lambda ink: photo(write(ink, grid(RED, diagonals=True), (40, 60, 150))),
    "pencil, red grid": lambda ink: photo(write(ink, grid(RED), (95, 95, 100))),
    "blue lines": lambda ink: photo(write(ink, ruled(BLUE, 3))),
    "grey lines": lambda ink: photo(write(ink, ruled(GREY, 3))),
    "neighbour": lambda ink: scan(marked(ink, (286, 120, 300, 180))),
    "two neighbours": lambda ink: photo(marked(ink, (270, 100, 300, 108), (0, 190, 20, 198), paper=PAPER)),
    "specks": lambda ink: scan(marked(ink, (12, 20, 16, 24), (280, 200, 284, 203), (150, 280, 153, 284))),
    "hard shadow": lambda ink: photo(shadow(ink)),
    "finger's shadow": lambda ink: photo(finger(ink)),
}


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlate two squares, softened so that a shift of half a pixel does not count."""
    soft = [np.asarray(Image.fromarray(square).filter(ImageFilter.GaussianBlur(1))) for square in (one, other)]
    return float(np.corrcoef(soft[0].ravel(), soft[1].ravel())[0, 1])


def plain_square(ink: np.ndarray) -> np.ndarray:
    return fit_square((255 - 230 * ink[..., 0]).astype(np.uint8), SIZE)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("char", CHARACTERS)
def test_the_square_is_that_of_the_plain_picture(char: str, page: str) -> None:
    ink = draw(char)
    assert likeness(fit_square(to_paper(PAGES[page](ink)), SIZE), plain_square(ink)) > 0.9


@pytest.mark.parametrize("margin", [0, 1, 4, 12])
@pytest.mark.parametrize("char", CHARACTERS)
def test_tight_crops_keep_strokes_that_touch_the_border(char: str, margin: int) -> None:
    ink = draw(char)
    rows, columns = (np.flatnonzero(ink[..., 0].any(axis)) for axis in (1, 0))
    box = [int(columns[0]) - margin, int(rows[0]) - margin, int(columns[-1]) + 1 + margin, int(rows[-1]) + 1 + margin]
    clean = scan(write(ink, sheet(WHITE))).convert("L").crop(box)
    assert np.array_equal(to_paper(clean), np.asarray(clean))
    assert len(readings(clean)) == 1
    for tone in (PAPER, (190, 195, 200)):
        assert likeness(fit_square(to_paper(photo(write(ink, sheet(tone))).crop(box)), SIZE), plain_square(ink)) > 0.9


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("char", CHARACTERS)
def test_strokes_are_no_sheet_and_their_paper_no_desk(char: str, inverted: bool) -> None:
    ink = draw(char, pen=12)
    soft = scan(write(ink, sheet(WHITE)) + np.random.default_rng(1).normal(0, 1, (SIDE, SIDE, 1))).convert("L")
    small = soft.resize((96, 96), Image.Resampling.LANCZOS)
    shown = Image.eval(small, lambda tone: 255 - tone) if inverted else small
    assert likeness(fit_square(to_paper(shown), SIZE), plain_square(ink)) > 0.9


@pytest.mark.parametrize("char", CHARACTERS)
def test_strokes_on_plain_paper_are_no_lines(char: str) -> None:
    assert find_lines(draw(char, side=260)[..., 0] > 0.5) == []


@pytest.mark.parametrize("turn", [-2.0, 0.0, 1.0])
def test_lines_are_found_where_they_are(turn: float) -> None:
    lines = find_lines(ruled(BLUE, 3, turn).mean(2) < 200)
    assert [line.upright for line in lines] == [False, False, False]
    for line, row in zip(sorted(lines, key=lambda line: line.middle), (20, 130, 240), strict=True):
        assert line.middle == pytest.approx(row, abs=2)
        assert np.degrees(np.arctan(line.slope)) == pytest.approx(-turn, abs=0.4)
        assert (line.start, line.end) == pytest.approx((0, SIDE), abs=2)
        assert line.thick == pytest.approx(3, abs=2)


def test_an_unsure_line_gives_two_squares_and_a_clean_picture_one() -> None:
    ink = draw("天", pen=4)
    black = photo(write(ink, ruled(INK, 3))).crop((0, 40, SIDE, 260)).resize((70, 51), Image.Resampling.BOX)
    squares = candidate_squares(black, SIZE)
    assert len(squares) > 1 and all(square.shape == (SIZE, SIZE) for square in squares)
    assert len(candidate_squares(scan(write(ink, sheet(WHITE))), SIZE)) == 1


def test_a_photo_of_1024_px_takes_less_than_50_ms_of_a_free_core() -> None:
    image = photo(write(draw("国"), grid(RED, diagonals=True))).resize((1024, 1024), Image.Resampling.BICUBIC)
    spent = []
    for _ in range(5):
        began = time.thread_time()
        to_paper(image)
        spent.append(time.thread_time() - began)
    assert min(spent) < 0.15  # room for a busy core and for slow ones


def test_real_records_keep_every_byte(real: Path) -> None:
    for number, path in enumerate(sorted(real.glob("*/*.gnt"))[5::12]):
        data, start = path.read_bytes(), 0
        while start < len(data):
            size, _, width, height = struct.unpack_from("<I2sHH", data, start)
            picture = np.frombuffer(data, np.uint8, width * height, start + 10).reshape(height, width)
            found = readings(Image.fromarray(picture))
            assert len(found) == 1 and np.array_equal(found[0], picture), f"{path.name}, {number}"
            start += size


def test_packs_and_weights_of_version_2_are_read_on(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clean pictures have the same bytes in both versions: nobody packs CASIA again."""
    corpus = find_corpus([corpus_folder], allowed=None, numbering=Charset.level1())
    monkeypatch.setattr(writer, "PREPROCESSING", _VERSION_2)
    pack(corpus, tmp_path / "old", PackConfig(32))
    monkeypatch.undo()
    pack(corpus, tmp_path / "new", PackConfig(32))
    old, new = (open_reader(tmp_path / name / "test.lmdb") for name in ("old", "new"))
    assert (old.meta["preprocessing"]["version"], new.meta["preprocessing"]["version"]) == (2, 3)
    assert old.digest == new.digest and np.array_equal(old.block(0), new.block(0))
    assert is_compatible(_VERSION_2) and not is_compatible(_VERSION_2 | {"version": 1})
