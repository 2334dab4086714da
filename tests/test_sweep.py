"""The sweep over pens, inks and sizes: each change does what its row says, and is read as hcr-predict reads it."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hcr.cli.predict import main as hcr_predict
from hcr.corpus.gnt import encode_record, read_gnt
from hcr.corpus.sample import Sample
from hcr.inference import Predictor
from hcr.models import load_recognizer

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def benchmark(path: str) -> ModuleType:
    """Import a script by its path in benchmarks/, without its ending."""
    file = BENCHMARKS / path
    sys.path.insert(0, str(file.parent))
    try:
        return importlib.import_module(file.name)
    finally:
        sys.path.pop(0)


def run(script: str, *arguments: object, code: int = 0) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def cells(report: str, row: str) -> list[str]:
    (found,) = (line for line in report.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


@pytest.fixture
def line() -> np.ndarray:
    """A dark grey upright line, 6 px wide and 20 long, on uint8[20, 30]."""
    picture = np.full((20, 30), 255, np.uint8)
    picture[:, 12:18] = 60
    return picture


@pytest.fixture
def scans(corpus_folder: Path) -> list[np.ndarray]:
    """Twelve drawn characters of one writer, as they lie in the corpus."""
    path = sorted((corpus_folder / "test").glob("*.gnt"))[0]
    found = read_gnt(path.read_bytes(), writer="", name="")
    return [sample.picture for sample in found if isinstance(sample, Sample)]


@pytest.mark.parametrize("pixels", [-4, -2, -1, 1, 2, 4])
def test_lines_grow_and_shrink_by_so_many_pixels(line: np.ndarray, pixels: int) -> None:
    sweep = benchmark("sweep")
    name = f"lines {abs(pixels)} px {'wider' if pixels > 0 else 'thinner'}"
    ink = sweep.CHANGES[name](line) < 255
    rows, columns = ink.any(1), ink.any(0)
    assert columns.sum() == 6 + pixels and rows.sum() == 20 + pixels
    assert ink.sum() == columns.sum() * rows.sum()


def test_ink_and_polarity(line: np.ndarray) -> None:
    changes = benchmark("sweep").CHANGES
    for share, darkest in ((0.15, 217), (0.3, 178), (0.5, 127), (1.0, 0)):
        changed = changes[f"darkest ink {share:.0%}"](line)
        assert abs(int(changed.min()) - darkest) <= 1 and (changed[line == 255] == 255).all()
    line[:, 11] = 230
    black = changes["all ink black"](line)
    assert set(np.unique(black)) == {0, 255} and (black[:, 12:18] == 0).all() and (black[:, 11] == 255).all()
    light = changes["light on black, 50%"](line)
    assert light[0, 0] == 0 and abs(int(light.max()) - 128) <= 1


def test_sizes_are_those_of_the_character(line: np.ndarray) -> None:
    changes = benchmark("sweep").CHANGES
    for side in (16, 20, 24, 32, 48, 64, 128, 256, 512):
        changed = changes[f"{side} px"](line)
        assert changed.shape == (side, round(side * 6 / 20)) and (changed == 60).all()
        assert np.array_equal(changed, changes[f"{side} px"](np.pad(line, 7, constant_values=255)))


def test_pictures_are_prepared_as_predict_prepares_them(scans: list[np.ndarray], whole: Path, tmp_path: Path) -> None:
    sweep = benchmark("sweep")
    weights = whole / "checkpoints/best.pt"
    predictor = Predictor(load_recognizer(weights))
    for name in ("lines 1 px wider", "darkest ink 15%", "light on black, 100%", "128 px"):
        folder = tmp_path / name
        folder.mkdir()
        for place, picture in enumerate(scans):
            Image.fromarray(sweep.CHANGES[name](picture)).save(folder / f"{place:02d}.png")
        done = CliRunner().invoke(hcr_predict, [str(folder), "--weights", str(weights), "--top", "3", "--json"])
        read = [json.loads(line)["top"] for line in done.stdout.splitlines()]
        squares = sweep.as_predicted(scans, sweep.CHANGES[name], 32)
        expected = [[{"char": c, "prob": round(p, 6)} for c, p in top] for top in predictor.predict(squares, 3)]
        assert read == expected and len(read) == 12, name


def test_white_on_black_is_read_as_black_on_white(scans: list[np.ndarray]) -> None:
    sweep = benchmark("sweep")
    dark, light = (
        sweep.as_predicted(scans, sweep.CHANGES[name], 48) for name in ("darkest ink 100%", "light on black, 100%")
    )
    assert np.array_equal(dark, light)
    plain = sweep.as_predicted(scans, None, 48)
    assert not np.array_equal(plain, sweep.as_predicted(scans, sweep.CHANGES["64 px"], 48))


def test_the_sweep_prints_a_row_a_change(corpus_folder: Path, whole: Path) -> None:
    sweep = benchmark("sweep")
    report = run("sweep.py", corpus_folder / "test", "--weights", whole / "checkpoints/best.pt", "--pictures", 10)
    assert report.splitlines()[0] == "| n = 10 | top-1 | points | ink | blank |"
    top1, points, ink, blank = cells(report, sweep.PLAIN)
    assert re.fullmatch(r"\d+\.\d\d %", top1) and (points, ink, blank) == ("", "1.00", "0")
    for name in sweep.CHANGES:
        changed, points, ink, _ = cells(report, name)
        assert float(points) == pytest.approx(float(changed[:-2]) - float(top1[:-2]), abs=0.011)
    assert float(cells(report, "lines 2 px wider")[2]) > 1.1 > 0.95 > float(cells(report, "lines 1 px thinner")[2])


def test_real_counts_every_picture_against_all_classes(corpus_folder: Path, whole: Path, tmp_path: Path) -> None:
    """Half of the characters, and two that the model does not know."""
    model = load_recognizer(whole / "checkpoints/best.pt")
    samples = []
    for path in sorted((corpus_folder / "test").glob("*.gnt")):
        found = read_gnt(path.read_bytes(), writer="", name="")
        samples += [s for s in found if isinstance(s, Sample) and s.char in model.charset.characters[::2]]
    records = [encode_record(sample.char, sample.picture) for sample in samples]
    records += [encode_record(char, samples[0].picture) for char in "鑫淼"]
    (tmp_path / "some.gnt").write_bytes(b"".join(records))
    arguments = (tmp_path, "--weights", whole / "checkpoints/best.pt", "--repeats", 3)
    report = run("real.py", *arguments, "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    assert (figures["n"], figures["characters"], figures["classes"], figures["left_out"]) == (12, 6, 12, 2)
    real = benchmark("real")
    squares = [real.fit_square(sample.picture, 32) for sample in samples]
    tops = [[char for char, _ in top] for top in Predictor(model).predict(squares, 5)]
    right = sum(top[0] == sample.char for top, sample in zip(tops, samples, strict=True))
    within = sum(sample.char in top for top, sample in zip(tops, samples, strict=True))
    assert figures["top1"] == pytest.approx(right / 12, abs=1e-5)
    assert figures["top5"] == pytest.approx(within / 12, abs=1e-5)
    assert all(figures[name] > 0 for name in ("ms_1", "ms_64", "ms_fitting"))
    wrong = {(sample.char, top[0]) for top, sample in zip(tops, samples, strict=True) if top[0] != sample.char}
    for char, answer in wrong:
        assert f"{answer} " in cells(report, char)[-1]
    assert cells(report, "top-1")[0].startswith(f"{right / 12:.2%}")


def test_real_says_what_it_cannot_read(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "a.gnt").write_bytes(encode_record("鑫", np.zeros((9, 9), np.uint8)))
    said = run("real.py", tmp_path, "--weights", whole / "checkpoints/best.pt", code=1)
    assert "none of its 1 pictures is of a character that the model knows" in said


def test_shapes_are_counted_as_they_are() -> None:
    shapes = benchmark("lab/shapes")
    square = np.full((64, 64), 255, np.uint8)
    square[8:56, 20:24] = square[8:56, 40:44] = square[8:12, 20:44] = square[52:56, 20:44] = 0  # a box
    square[30:34, 50:60] = 60  # and a dash beside it
    square[2, 2] = 0  # a speck is no piece
    pieces, holes, aspect, ink = shapes.counts(square)
    assert (pieces, holes) == (2, 1)
    assert aspect == pytest.approx(np.log(58 / 54)) and ink == pytest.approx(
        100 * (2 * 48 * 4 + 2 * 4 * 16 + 41) / 4096
    )
    rows, columns = np.mgrid[:64, :64]
    leaning = np.where(abs((columns - 32) + 0.2 * (rows - 32)) < 2, 0, 255).astype(np.uint8)
    rising = np.where(abs((rows - 32) + 0.1 * (columns - 32)) < 2, 0, 255).astype(np.uint8)
    (lean, _), (_, rise) = shapes.tilts(np.stack([leaning, rising]))
    assert lean == pytest.approx(np.degrees(np.arctan(0.2)), abs=1)
    assert rise == pytest.approx(np.degrees(np.arctan(0.1)), abs=1)


def test_shapes_compares_drawn_with_read(corpus_folder: Path) -> None:
    report = run("lab/shapes.py", corpus_folder / "test", "--pictures", 24)
    names = [line.split(" | ")[0].strip("| ") for line in report.splitlines()[2:]]
    assert names[:2] == [str(corpus_folder / "test"), "drawn"] and set(names[2:]) <= {
        f"drawn by {hands} hands" for hands in ("slow", "middling", "fast")
    }
    assert sum(int(cells(report, name)[0]) for name in names[2:]) == int(cells(report, "drawn")[0]) == 24
