"""The one preprocessing: every way a character can come as a picture ends in nearly the same square."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from hcr.errors import DataError
from hcr.preprocess.fit import PREPROCESSING, fit_square, fit_squares, open_picture, to_paper

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"

Stroke = list[tuple[float, float]]
FRAME: Stroke = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]
SHAPES: dict[str, list[Stroke]] = {
    "一": [[(0, 0.5), (1, 0.5)]],
    "丨": [[(0.5, 0), (0.5, 1)]],
    "口": [FRAME],
    "曰": [FRAME, [(0, 0.5), (1, 0.5)]],
    "田": [FRAME, [(0, 0.5), (1, 0.5)], [(0.5, 0), (0.5, 1)]],
    "十": [[(0, 0.5), (1, 0.5)], [(0.5, 0), (0.5, 1)]],
    "山": [[(0, 0.4), (0, 1), (1, 1), (1, 0.4)], [(0.5, 0), (0.5, 1)]],
    "天": [[(0.1, 0.05), (0.9, 0)], [(0, 0.4), (1, 0.4)], [(0.5, 0.05), (0.45, 0.5), (0, 1)], [(0.5, 0.45), (1, 1)]],
}


def draw(char: str, side: int = 80, pen: float = 5, margin: int = 6) -> np.ndarray:
    """Draw a shape of SHAPES with soft edges, black on 255, `margin` pixels around; 0 crops to the ink."""
    scale = 4
    length, around = side * scale, int(pen + margin + 2) * scale
    image = Image.new("L", (length + 2 * around, length + 2 * around), 255)
    canvas = ImageDraw.Draw(image)
    for stroke in SHAPES[char]:
        points = [(around + x * length, around + y * length) for x, y in stroke]
        canvas.line(points, fill=20, width=round(pen * scale), joint="curve")
        for x, y in points:
            half = pen * scale / 2
            canvas.ellipse((x - half, y - half, x + half, y + half), fill=20)
    image = image.reduce(scale)
    box = Image.eval(image, lambda tone: 255 - tone).getbbox()
    assert box is not None
    return np.pad(np.asarray(image.crop(box)), margin, constant_values=255)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlate two squares, softened so that a shift of half a pixel does not count."""
    soft = [np.asarray(Image.fromarray(square).filter(ImageFilter.GaussianBlur(1))) for square in (one, other)]
    return float(np.corrcoef(soft[0].ravel(), soft[1].ravel())[0, 1])


def square_of(image: Image.Image) -> np.ndarray:
    return fit_square(to_paper(image), 64)


# --- fit_square -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 48, 64, 96])
def test_fit_square_fills_the_square_less_the_margin_and_centres(size: int) -> None:
    picture = np.full((100, 140), 255, np.uint8)
    picture[13:33, 50:130] = 0
    square = fit_square(picture, size)
    margin = round(size / 16)
    rows, columns = np.flatnonzero((square < 255).any(1)), np.flatnonzero((square < 255).any(0))
    assert square.shape == (size, size) and square.dtype == np.uint8
    assert (columns[0], columns[-1]) == (margin, size - margin - 1)
    assert abs(rows[0] - (size - 1 - rows[-1])) <= 1
    assert len(columns) / len(rows) == pytest.approx(4, rel=0.1)


def test_fit_square_does_not_depend_on_the_paper_around() -> None:
    picture = draw("天")
    padded = np.pad(picture, ((3, 90), (40, 0)), constant_values=255)
    assert np.array_equal(fit_square(padded, 64), fit_square(picture, 64))


def test_fit_square_keeps_ri_and_yue_apart() -> None:
    narrow, wide = (np.pad(np.zeros(shape, np.uint8), 1, constant_values=255) for shape in ((60, 40), (40, 60)))
    ink = [fit_square(picture, 64) < 255 for picture in (narrow, wide)]
    assert [(mask.any(1).sum(), mask.any(0).sum()) for mask in ink] == [(56, 37), (37, 56)]


def test_fit_square_of_nothing_is_paper() -> None:
    for shape in ((0, 0), (0, 5), (1, 1), (30, 40)):
        assert (fit_square(np.full(shape, 255, np.uint8), 32) == 255).all()


def test_fit_square_takes_one_pixel_and_extreme_shapes() -> None:
    dot = np.full((9, 9), 255, np.uint8)
    dot[4, 4] = 0
    assert (fit_square(dot, 32) == 0).sum() == 28 * 28
    assert (fit_square(np.zeros((1, 500), np.uint8), 32) < 255).any(1).sum() == 1


def fitted_singly(picture: np.ndarray, size: int) -> np.ndarray:
    """Fit one picture, step by step."""
    square = np.full((size, size), 255, np.uint8)
    ink = Image.fromarray(255 - picture)
    if (box := ink.getbbox()) is None:
        return square
    scale = (size - 2 * round(size / 16)) / max(box[2] - box[0], box[3] - box[1])
    width, height = (max(1, round((box[i + 2] - box[i]) * scale)) for i in (0, 1))
    ink = ink.crop(box).resize((width, height), Image.Resampling.LANCZOS if scale > 1 else Image.Resampling.BILINEAR)
    left, top = (size - width) // 2, (size - height) // 2
    square[top : top + height, left : left + width] = 255 - np.asarray(ink)
    return square


def test_many_squares_of_several_sizes_are_those_of_single_steps() -> None:
    rng = np.random.default_rng(0)
    pictures = [np.full((4, 5), 255, np.uint8), np.asfortranarray(draw("田", 70))]
    for sides in rng.integers(1, 200, (40, 2)):
        picture = np.full(sides, 255, np.uint8)
        marked = rng.random(picture.shape) < rng.choice([0.001, 0.3])
        picture[marked] = rng.integers(0, 255, marked.sum())
        pictures.append(picture)
    outs = [np.empty((len(pictures), size, size), np.uint8) for size in (17, 32, 96)]
    fit_squares(pictures, outs)
    for squares in outs:
        for square, picture in zip(squares, pictures, strict=True):
            assert np.array_equal(square, fitted_singly(picture, len(square)))


def test_fit_square_is_fast_enough_for_millions() -> None:
    picture = draw("田", 70)
    best = min(_seconds(lambda: [fit_square(picture, 64) for _ in range(500)]) for _ in range(5))
    assert best / 500 < 1 / 5000  # 15,000 a second and more on a free core; room for a busy one


def _seconds(work) -> float:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# --- modes ------------------------------------------------------------------------------------------------------------


def _palette(grey: np.ndarray, transparent: bool) -> Image.Image:
    image = Image.fromarray(grey).quantize(16)
    if transparent:
        lightest = int(np.asarray(image)[0, 0])
        file = io.BytesIO()
        image.save(file, "PNG", transparency=lightest)
        file.seek(0)
        image = Image.open(file)
        image.load()
    return image


def _tone_and_alpha(mode: str, tone: int, grey: np.ndarray) -> Image.Image:
    flat = Image.new("L", grey.shape[::-1], tone)
    return Image.merge(mode, [flat] * (len(mode) - 1) + [Image.fromarray(255 - grey)])


def _card(grey: np.ndarray) -> Image.Image:
    opaque = Image.new("L", grey.shape[::-1], 0)
    opaque.paste(255, (2, 2, grey.shape[1] - 2, grey.shape[0] - 2))
    return Image.merge("LA", [Image.fromarray(grey), opaque])


MODES = {
    "1": lambda g: Image.fromarray(g).convert("1", dither=Image.Dither.NONE),
    "L": Image.fromarray,
    "RGB": lambda g: Image.fromarray(g).convert("RGB"),
    "RGB blue ink": lambda g: Image.merge("RGB", [Image.fromarray(c) for c in (g, g, np.maximum(g, 160))]),
    "CMYK": lambda g: Image.fromarray(g).convert("CMYK"),
    "YCbCr": lambda g: Image.fromarray(g).convert("YCbCr"),
    "HSV": lambda g: Image.fromarray(g).convert("RGB").convert("HSV"),
    "I;16": lambda g: Image.fromarray(g.astype(np.uint16) * 257),
    "I": lambda g: Image.fromarray(g.astype(np.int32)),
    "F 0..1": lambda g: Image.fromarray(g.astype(np.float32) / 255),
    "F 0..255": lambda g: Image.fromarray(g.astype(np.float32)),
    "P": lambda g: _palette(g, False),
    "P transparent": lambda g: _palette(g, True),
    "LA": lambda g: Image.merge("LA", [Image.fromarray(g), Image.new("L", g.shape[::-1], 255)]),
    "RGBA": lambda g: Image.fromarray(g).convert("RGBA"),
    "LA card": _card,
}


@pytest.mark.parametrize("inverted", [False, True], ids=["dark ink", "light ink"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_and_polarity_gives_the_same_square(mode: str, inverted: bool) -> None:
    for char in ("天", "田", "山"):
        clean = draw(char)
        image = MODES[mode](255 - clean if inverted else clean)
        assert likeness(square_of(image), fit_square(clean, 64)) > 0.95, char


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("tone", [0, 255, 230], ids=["black", "white", "light"])
def test_ink_on_nothing_is_seen_by_its_opacity(mode: str, tone: int) -> None:
    clean = draw("天")
    assert likeness(square_of(_tone_and_alpha(mode, tone, clean)), fit_square(clean, 64)) > 0.95


def test_black_ink_on_nothing_keeps_every_byte() -> None:
    clean = draw("天")
    assert np.array_equal(to_paper(_tone_and_alpha("LA", 0, clean)), clean)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "I;16", "I", "F 0..255", "LA"])
def test_clean_pictures_keep_every_byte(mode: str, inverted: bool) -> None:
    clean = draw("天")
    assert np.array_equal(to_paper(MODES[mode](255 - clean if inverted else clean)), clean)


def test_pictures_without_ink_are_paper() -> None:
    rng = np.random.default_rng(0)
    noisy = rng.normal(200, 3, (300, 300)).clip(0, 255).astype(np.uint8)
    for grey in (np.full((50, 40), 255, np.uint8), np.zeros((50, 40), np.uint8), np.full((9, 9), 128, np.uint8), noisy):
        assert (to_paper(Image.fromarray(grey)) == 255).all()
    assert (to_paper(Image.new("RGBA", (20, 30), (0, 0, 0, 0))) == 255).all()


# --- polarity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inverted", [False, True], ids=["dark ink", "light ink"])
@pytest.mark.parametrize("margin", [0, 1, 20, 100])
@pytest.mark.parametrize("pen", [2, 5, 8])
@pytest.mark.parametrize("char", SHAPES)
def test_polarity_of_crops(char: str, pen: int, margin: int, inverted: bool) -> None:
    clean = draw(char, pen=pen, margin=margin)
    assert np.array_equal(to_paper(Image.fromarray(255 - clean if inverted else clean)), clean)


@pytest.mark.parametrize("inverted", [False, True])
def test_slanting_stroke_cropped_tight(inverted: bool) -> None:
    image = Image.new("L", (800, 160), 255)
    ImageDraw.Draw(image).line([(30, 125), (770, 35)], fill=30, width=60)
    clean = np.asarray(image.reduce(10))
    assert np.array_equal(to_paper(Image.fromarray(255 - clean if inverted else clean)), clean)


def _real(every: int) -> list[np.ndarray]:
    pictures = []
    for path in sorted(REAL.glob("*/*.gnt"))[::every]:
        data, start = path.read_bytes(), 0
        while start < len(data):
            size, _, width, height = struct.unpack_from("<I2sHH", data, start)
            pictures.append(np.frombuffer(data, np.uint8, width * height, start + 10).reshape(height, width))
            start += size
    return pictures


@pytest.mark.skipif(not REAL.is_dir(), reason="no real handwriting here")
def test_real_handwriting_keeps_every_byte_and_its_polarity() -> None:
    for number, picture in enumerate(_real(every=12)):
        thick = np.asarray(Image.fromarray(picture).filter(ImageFilter.MinFilter(3)))
        black = np.where(picture < 160, 0, 255).astype(np.uint8)
        for name, variant in (("as it is", picture), ("thick", thick), ("1-bit", black)):
            for shown in (variant, 255 - variant):
                assert np.array_equal(to_paper(Image.fromarray(shown)), variant), f"record {number}, {name}"


# --- photos -----------------------------------------------------------------------------------------------------------


def photograph(clean: np.ndarray, width: int, height: int, share: float, light: str, ink_light: bool) -> Image.Image:
    """Photograph a character: tinted paper, uneven light, sensor noise, JPEG."""
    rng = np.random.default_rng(7)
    side = int(share * min(width, height))
    ink = Image.fromarray(255 - clean).resize((side, side * clean.shape[0] // clean.shape[1]), Image.Resampling.BICUBIC)
    canvas = Image.new("L", (width, height), 0)
    canvas.paste(ink, (int((width - ink.width) * 0.6), int((height - ink.height) * 0.4)))
    paper, pen = ((45, 60, 50), (215, 215, 205)) if ink_light else ((235, 225, 200), (40, 45, 70))
    opacity = np.asarray(canvas, np.float32)[..., None] / 255
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    lights = {"even": x * 0 + 1, "side": 0.45 + 0.55 * x * (0.7 + 0.3 * y)}
    lights["corners"] = 1 - 0.8 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    scene = (np.float32(paper) * (1 - opacity) + np.float32(pen) * opacity) * lights[light][..., None]
    scene += rng.normal(0, 5, (height, width, 1)).astype(np.float32)
    file = io.BytesIO()
    Image.fromarray(scene.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return open_picture(file, "photo.jpg")


@pytest.mark.parametrize("ink_light", [False, True], ids=["pen", "chalk"])
@pytest.mark.parametrize("light", ["even", "side", "corners"])
@pytest.mark.parametrize(("width", "height", "share"), [(1600, 1200, 0.8), (1200, 1600, 0.3), (320, 300, 0.7)])
def test_photos_give_the_same_square(width: int, height: int, share: float, light: str, ink_light: bool) -> None:
    clean = draw("天")
    paper = to_paper(photograph(clean, width, height, share, light, ink_light))
    assert max(paper.shape) <= 1024
    assert (paper == 255).mean() > 0.7
    assert likeness(fit_square(paper, 64), fit_square(clean, 64)) > 0.9


def test_a_large_photo_is_read_in_reasonable_time() -> None:
    photo = photograph(draw("天"), 4000, 3000, 0.4, "side", False)
    start = time.perf_counter()
    square = square_of(photo)
    assert time.perf_counter() - start < 3
    assert likeness(square, fit_square(draw("天"), 64)) > 0.9


def test_ink_on_ruled_paper_survives_and_the_lines_do_not() -> None:
    clean = draw("天", side=160, pen=10)
    page = np.full((480, 480), 240, np.uint8)
    page[20::40] = 190
    page[150 : 150 + clean.shape[0], 150 : 150 + clean.shape[1]] = np.minimum(
        page[150 : 150 + clean.shape[0], 150 : 150 + clean.shape[1]], clean
    )
    noise = np.random.default_rng(1).normal(0, 3, page.shape)
    image = Image.fromarray((page + noise).clip(0, 255).astype(np.uint8))
    assert likeness(square_of(image), fit_square(clean, 64)) > 0.9


def test_dust_far_from_the_ink_is_ignored() -> None:
    clean = draw("天", side=300, pen=16, margin=100)
    dusty = clean.astype(np.float64) * 0.9
    dusty[5:8, 5:8] = 90
    dusty += np.random.default_rng(2).normal(0, 4, clean.shape)
    image = Image.fromarray(dusty.clip(0, 255).astype(np.uint8))
    assert likeness(square_of(image), fit_square(clean, 64)) > 0.95


def test_jpeg_of_a_scan_loses_its_ringing() -> None:
    clean = draw("田", margin=20)
    file = io.BytesIO()
    Image.fromarray(clean).save(file, "JPEG", quality=70)
    assert likeness(square_of(open_picture(file, "scan.jpg")), fit_square(clean, 64)) > 0.97


# --- files ------------------------------------------------------------------------------------------------------------


def test_open_picture_applies_the_exif_orientation() -> None:
    image, file = Image.fromarray(draw("山")), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter: shown upright it must be rotated clockwise
    image.save(file, "JPEG", exif=exif, quality=95)
    opened = open_picture(file, "turned.jpg")
    upright = np.asarray(image.transpose(Image.Transpose.ROTATE_270))
    assert likeness(np.asarray(opened), upright) > 0.99


def _png(width: int = 40, height: int = 40) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width, height), 50).save(file, "PNG")
    return file.getvalue()


def test_open_picture_names_what_is_no_picture(tmp_path: Path) -> None:
    text, cut = tmp_path / "notes.txt", tmp_path / "cut.png"
    text.write_text("no picture")
    cut.write_bytes(_png()[:700])
    for path, message in (
        (text, r"notes\.txt: not a picture in any known format"),
        (cut, r"cut\.png: cannot read this picture \(.*truncated"),
        (tmp_path / "absent.png", r"absent\.png: cannot read this picture \(No such file or directory\)"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            open_picture(path, str(path))
        assert "\n" not in str(caught.value)


def test_open_picture_refuses_decompression_bombs() -> None:
    # A valid header that promises 20,000 x 20,000 pixels, and hardly any data.
    head = bytearray(_png())
    head[16:24] = struct.pack(">II", 20_000, 20_000)
    import zlib

    head[29:33] = struct.pack(">I", zlib.crc32(bytes(head[12:29])))
    with pytest.raises(DataError, match=r"bomb\.png: more than 89 million pixels; crop it"):
        open_picture(io.BytesIO(bytes(head)), "bomb.png")


def test_open_picture_survives_any_damage() -> None:
    good, rng = _png(), np.random.default_rng(3)
    for _ in range(200):
        bad = bytearray(good)
        for position in rng.integers(0, len(bad), 4):
            bad[position] = rng.integers(256)
        try:
            to_paper(open_picture(io.BytesIO(bytes(bad)), "x.png"))
        except DataError as error:
            assert str(error).startswith("x.png: ")


def test_preprocessing_can_be_recorded() -> None:
    import json

    assert json.loads(json.dumps(PREPROCESSING)) == PREPROCESSING
    assert PREPROCESSING["version"] == 3
