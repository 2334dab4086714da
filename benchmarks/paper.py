"""What paper and edges cost a model: drawn characters on every kind of page, read as hcr-predict reads them.

    python benchmarks/paper.py [--pictures 300] [--photos FOLDER] [--records FOLDER --count 1500]

The pen draws characters of level 1, each by another writer, and as many of ten characters of level strokes (一 to 国),
which look like lines. Each page is a function of the character's number, so that two programs see the same pictures.
`--photos` names a folder of pictures with `labels.csv` (path, char), `--records` one of GNT files; both may be named
several times. `--sheet` draws what the pages and the network's squares look like.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

sys.path.insert(0, str(Path(__file__).parent))
from common import processor, say, table
from handwriting import read_samples, some

from hcr.charset import Charset
from hcr.inference import Predictor
from hcr.layout import RELEASED
from hcr.models import load_recognizer
from hcr.preprocess.fit import candidate_squares, open_picture
from hcr.synth.generator import Generator

SEED = 5
SIDE = 300
PLAIN = "plain scan"
LEVEL_STROKES = "一二三十工王口日田国"
PAPER, DESK, INK = (250, 249, 246), (70, 45, 30), (25, 25, 30)
RED, GREEN, BLUE, GREY = (220, 60, 60), (60, 150, 80), (70, 110, 190), (110, 110, 110)
BLUE_INK, PENCIL = (40, 60, 150), (95, 95, 100)

Scene = np.ndarray  # float32[H, W, 3], 0..255
# page(ink, random): opacity float32[SIDE, SIDE, 1] of a character's ink in, a picture out.
Page = Callable[[np.ndarray, np.random.Generator], Image.Image]

KINDS: dict[str, Page] = {}


def kind(name: str) -> Callable[[Page], Page]:
    """Enter a kind of page under a name."""

    def enter(page: Page) -> Page:
        KINDS[name] = page
        return page

    return enter


def place(character: np.ndarray, side: int, at: tuple[int, int]) -> np.ndarray:
    """Put a picture uint8[S, S] (255 = paper), scaled to `side` px, on a page: opacity float32[SIDE, SIDE, 1]."""
    sheet = Image.new("L", (SIDE, SIDE), 0)
    sheet.paste(Image.fromarray(255 - character).resize((side, side), Image.Resampling.BICUBIC), at)
    return np.asarray(sheet, np.float32)[..., None] / 255


def sheet(tone: Sequence[int] = PAPER) -> Scene:
    return np.full((SIDE, SIDE, 3), tone, np.float32)


def write(ink: np.ndarray, ground: Scene, colour: Sequence[int] = INK) -> Scene:
    return ground * (1 - ink) + np.float32(colour) * ink


def scan(scene: Scene) -> Image.Image:
    return Image.fromarray(scene.clip(0, 255).round().astype(np.uint8))


def photo(scene: Scene, random: np.random.Generator) -> Image.Image:
    """Add a sensor's noise and JPEG."""
    file = io.BytesIO()
    scan(scene + random.normal(0, 2, scene.shape)).save(file, "JPEG", quality=88)
    return open_picture(file, "photo.jpg")


def drawn_on(ground: Scene, draw: Callable[[ImageDraw.ImageDraw], None], turn: float = 0) -> Scene:
    """Print lines on paper, twice as large and averaged, turned by some degrees."""
    mask = Image.new("RGB", (2 * SIDE, 2 * SIDE), tuple(int(tone) for tone in ground[0, 0]))
    draw(ImageDraw.Draw(mask))
    turned = mask.rotate(turn, Image.Resampling.BICUBIC, fillcolor=mask.getpixel((0, 0)))
    return np.asarray(turned.reduce(2), np.float32)


def grid(
    colour: Sequence[int],
    random: np.random.Generator,
    *,
    cross: str = "dashed",
    diagonals: bool = False,
    width: int = 2,
    box: bool = True,
) -> Scene:
    """Print a square of practice paper: 田字格, or 米字格 with diagonals."""
    low, fill = 2 * int(random.integers(4, 14)), tuple(colour)
    high, middle = 2 * SIDE - 1 - low, SIDE

    def draw(on: ImageDraw.ImageDraw) -> None:
        if box:
            on.rectangle((low, low, high, high), outline=fill, width=2 * width)
        step = 32 if cross == "dashed" else 16
        for start in range(low, high if cross else low, step):
            on.line((start, middle, start + 16, middle), fill=fill, width=2)
            on.line((middle, start, middle, start + 16), fill=fill, width=2)
        if diagonals:
            on.line((low, low, high, high), fill=fill, width=2)
            on.line((high, low, low, high), fill=fill, width=2)

    return drawn_on(sheet(), draw, float(random.normal(0, 0.6)))


def ruled(colour: Sequence[int], width: int, random: np.random.Generator) -> Scene:
    first = int(random.integers(10, 60))

    def draw(on: ImageDraw.ImageDraw) -> None:
        for row in (first, first + 110, first + 220):
            on.line((-40, 2 * row, 2 * SIDE + 40, 2 * row), fill=tuple(colour), width=2 * width)

    return drawn_on(sheet(), draw, float(random.normal(0, 0.6)))


@kind(PLAIN)
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return scan(write(ink, sheet((255, 255, 255))))


@kind("plain photo")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, sheet()), random)


@kind("black frame")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    scene = write(ink, sheet((255, 255, 255)))
    scene[:3] = scene[-3:] = scene[:, :3] = scene[:, -3:] = 0
    return scan(scene)


@kind("black frame inset")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    image = scan(write(ink, sheet((255, 255, 255))))
    ImageDraw.Draw(image).rectangle((9, 9, SIDE - 10, SIDE - 10), outline=(0, 0, 0), width=2)
    return image


@kind("desk all round")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    scene = write(ink, sheet())
    scene[:20] = scene[-20:] = scene[:, :20] = scene[:, -20:] = DESK
    return photo(scene, random)


@kind("sheet on a desk")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    desk = Image.new("RGB", (SIDE * 2, SIDE * 2), DESK)
    page = scan(write(ink, sheet())).convert("RGBA").rotate(float(random.normal(0, 3)), Image.Resampling.BICUBIC, True)
    desk.paste(page, (SIDE // 2, SIDE // 2), page)
    return photo(np.asarray(desk, np.float32), random)


@kind("desk on the left")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    scene = write(ink, sheet())
    scene[:, : SIDE // 10] = DESK
    return photo(scene, random)


@kind("red grid, photo")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, grid(RED, random)), random)


@kind("red grid, scan")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return scan(write(ink, grid(RED, random)))


@kind("red grid, solid lines")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, grid(RED, random, cross="solid")), random)


@kind("red grid, diagonals")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, grid(RED, random, diagonals=True)), random)


@kind("red box")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, grid(RED, random, cross="")), random)


@kind("green grid")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, grid(GREEN, random)), random)


@kind("blue grid, diagonals")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, grid(BLUE, random, cross="solid", diagonals=True)), random)


@kind("grey grid")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, grid(GREY, random)), random)


@kind("grey grid, diagonals")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, grid(GREY, random, cross="solid", diagonals=True)), random)


@kind("blue ink on a red grid")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, grid(RED, random, diagonals=True), BLUE_INK), random)


@kind("pencil on a red grid")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink * 0.8, grid(RED, random), PENCIL), random)


@kind("red ink on a green grid")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, grid(GREEN, random), (190, 30, 40)), random)


@kind("blue lines, 1 px")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, ruled((150, 180, 220), 1, random)), random)


@kind("blue lines, 3 px")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, ruled(BLUE, 3, random)), random)


@kind("grey lines, 3 px")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, ruled(GREY, 3, random)), random)


@kind("black lines, 2 px")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    return photo(write(ink, ruled(INK, 2, random)), random)


@kind("scanner's edge")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    ground = sheet((255, 255, 255))
    ground[:, -4:] = 40
    return scan(write(ink, np.rot90(ground, int(random.integers(4)))))


@kind("toolbar")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    image = scan(write(ink, sheet((255, 255, 255))))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, SIDE, 24), fill=(225, 225, 228))
    for left in range(8, SIDE - 20, 26):
        draw.rectangle((left, 5, left + 14, 19), outline=(60, 60, 60), width=2)
        draw.line((left + 4, 15, left + 10, 9), fill=(30, 90, 200), width=2)
    return image


@kind("neighbour's stroke")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    ground = sheet((255, 255, 255))
    ground[120:180, -14:] = 30
    return scan(write(ink, np.rot90(ground, 2 * int(random.integers(2)))))


@kind("neighbour's stroke, photo")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    scene = write(ink, sheet())
    scene[100:108, -28:] = 40
    scene[190:197, -20:] = 40
    return photo(scene, random)


@kind("specks")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    scene = write(ink, sheet((255, 255, 255)))
    for row, column in random.integers(4, SIDE - 8, (6, 2)):
        scene[row : row + 4, column : column + 3] = 40
    return scan(scene)


@kind("hard shadow")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    edge = np.clip((x + 0.4 * y - 200) / 2, 0, 1)[..., None]
    return photo(write(ink, sheet()) * (0.47 + 0.53 * edge), random)


@kind("a finger's shadow")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    mask = Image.new("L", (SIDE, SIDE), 255)
    draw, centre = ImageDraw.Draw(mask), int(random.integers(90, 210))
    draw.line((centre, SIDE, centre - 20, 120), fill=130, width=60)
    draw.ellipse((centre - 50, 90, centre + 10, 150), fill=130)
    shade = np.asarray(mask.filter(ImageFilter.GaussianBlur(2)), np.float32)[..., None] / 255
    light = np.linspace(1, 0.8, SIDE, dtype=np.float32)[None, :, None]
    return photo(write(ink, sheet()) * shade * light, random)


@kind("uneven light")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j]
    return photo(write(ink, sheet((238, 228, 205))) * (0.45 + 0.55 * x * (0.7 + 0.3 * y))[..., None], random)


@kind("blackboard, its frame")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    scene = write(ink, sheet((45, 60, 50)), (215, 215, 205))
    scene[:, :14] = (190, 150, 100)
    return photo(scene, random)


@kind("cut out of a note, 40 px")
def _(ink: np.ndarray, random: np.random.Generator) -> Image.Image:
    scene = write(ink, ruled((150, 170, 200), 2, random), (60, 70, 130)) * np.float32((0.72, 0.75, 0.78))
    rows, columns = (np.flatnonzero(ink[..., 0].max(axis) > 0.2) for axis in (1, 0))
    around = random.integers(2, 22, 4)
    box = (columns[0] - around[0], rows[0] - around[1], columns[-1] + around[2], rows[-1] + around[3])
    small = scan(scene).crop([int(side) for side in box])
    small = small.resize([max(8, round(side * 40 / max(small.size))) for side in small.size], Image.Resampling.BOX)
    return photo(np.asarray(small, np.float32), random)


def characters(count: int) -> tuple[str, str, np.ndarray]:
    """Draw level 1's characters, spread evenly, then LEVEL_STROKES over and over; as many of these.

    Gives both texts and uint8[2 * count, 200, 200].
    """
    known = Charset.level1()
    spread = "".join(known[label] for label in np.linspace(0, len(known) - 1, count).astype(int).tolist())
    level = (LEVEL_STROKES * (count // len(LEVEL_STROKES) + 1))[:count]
    labels = torch.tensor([known.label(char) for char in spread + level])
    writers = torch.arange(len(labels))
    pen = Generator(known.characters)
    return spread, level, pen.draw_page(labels, writers, writers * 0, seed=SEED, size=200).numpy()


def pages(drawn: np.ndarray, page: Page) -> list[Image.Image]:
    """Put each character on a page of its own."""
    made = []
    for number, character in enumerate(drawn):
        random = np.random.default_rng([SEED, number])
        side = int(random.integers(190, 240))
        middle = (SIDE - side) // 2
        shift = random.integers(-8, 9, 2).tolist()
        made.append(page(place(character, side, (middle + shift[0], middle + shift[1])), random))
    return made


def labelled(folder: Path) -> tuple[list[Image.Image], str]:
    """Read the pictures that a folder's labels.csv names, and their characters."""
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [open_picture(folder / row["path"], row["path"]) for row in rows], "".join(row["char"] for row in rows)


def records(folder: Path, count: int | None) -> tuple[list[Image.Image], str]:
    """Read the records below a folder, or `count` of them drawn with a fixed seed, and their characters."""
    samples = some(read_samples(folder), count)
    return [Image.fromarray(sample.picture) for sample in samples], "".join(sample.char for sample in samples)


def measured(predictor: Predictor, images: Sequence[Image.Image], text: str) -> tuple[float, float, float]:
    """Return the shares read right, 0 to 1, by each picture's first square and by the surest one.

    Also the milliseconds of a core that preparing a picture took.
    """
    began = time.thread_time()
    squares = [candidate_squares(image, predictor.size) for image in images]
    spent = 1000 * (time.thread_time() - began) / len(images)
    shares = []
    for answers in (predictor.predict([each[0] for each in squares]), predictor.surest(squares)):
        shares.append(float(np.mean([top[0][0] == char for top, char in zip(answers, text, strict=True)])))
    return shares[0], shares[1], spent


def contact_sheet(drawn: np.ndarray, size: int, side: int = 96) -> Image.Image:
    """Show eight characters on every kind of page, each beside its first square."""
    shown = drawn[np.linspace(0, len(drawn) - 1, 8).astype(int)]
    whole = Image.new("RGB", (16 * side, len(KINDS) * side), (255, 0, 255))
    for row, page in enumerate(KINDS.values()):
        for column, image in enumerate(pages(shown, page)):
            square = Image.fromarray(candidate_squares(image, size)[0]).resize((side - 4, side - 4))
            image = image.convert("RGB")
            image.thumbnail((side - 4, side - 4))
            whole.paste(image, (2 * column * side, row * side))
            whole.paste(square, ((2 * column + 1) * side, row * side))
    return whole


def main() -> None:
    """Measure every kind of page and the folders given, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=300, help="of each kind of page")
    parser.add_argument("--weights", type=Path, default=RELEASED["level1"], help="a checkpoint or released file")
    parser.add_argument("--only", metavar="TEXT", default="", help="kinds of page whose names hold this")
    parser.add_argument("--photos", type=Path, action="append", default=[], help="a folder with labels.csv")
    parser.add_argument("--records", type=Path, action="append", default=[], help="a folder with GNT files")
    parser.add_argument("--count", type=int, help="so many of each folder's records; default: all")
    parser.add_argument("--sheet", type=Path, help="write pages and squares here instead of measuring")
    given = parser.parse_args()
    torch.set_num_threads(1)
    predictor = Predictor(load_recognizer(given.weights))
    spread, level, drawn = characters(given.pictures)
    if given.sheet:
        contact_sheet(drawn, predictor.size).save(given.sheet)
        return
    rows: list[list[str]] = []
    plain = plain_level = 0.0
    for name, page in KINDS.items():
        if name != PLAIN and given.only not in name:
            continue
        say(name)
        images = pages(drawn, page)
        first, surest, spent = measured(predictor, images[: len(spread)], spread)
        _, surest_level, _ = measured(predictor, images[len(spread) :], level)
        if name == PLAIN:
            plain, plain_level = surest, surest_level
        rows.append(
            [
                name,
                f"{surest:.1%}",
                f"{surest / plain:.1%}",
                f"{first:.1%}",
                f"{surest_level:.1%}",
                f"{surest_level / plain_level:.1%}",
                f"{spent:.1f}",
            ]
        )
    header = [
        f"n = {len(spread)} and {len(level)}",
        "top-1",
        "of plain",
        "first square",
        LEVEL_STROKES,
        "of plain",
        "ms",
    ]
    print(f"One core of {processor()}.\n")
    print(table(header, rows))
    rows = []
    folders = [(folder, labelled(folder)) for folder in given.photos]
    folders += [(folder, records(folder, given.count)) for folder in given.records]
    for folder, (images, text) in folders:
        say(str(folder))
        first, surest, spent = measured(predictor, images, text)
        rows.append([folder.name, str(len(text)), f"{surest:.2%}", f"{first:.2%}", f"{spent:.2f}"])
    if rows:
        print()
        print(table(["folder", "n", "top-1", "first square", "ms"], rows))


if __name__ == "__main__":
    main()
