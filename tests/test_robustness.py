"""Conditions: each does what its name says, to each picture by itself; a table and a plot of what they cost."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hcr.evaluation import evaluate_conditions, make_evaluator, write_report
from hcr.evaluation.robustness import CONDITIONS, PLAIN
from hcr.pack.store import open_reader
from hcr.preprocess.fit import fit_square
from tests.test_evaluation import Interrupted, checkpoint, pack_charset


@pytest.fixture
def pictures(small_pack: Path) -> Tensor:
    """The 24 test pictures, uint8[24, 1, 32, 32]."""
    reader = open_reader(small_pack / "test.lmdb")
    images = np.empty((24, 32, 32), np.uint8)
    reader.pictures(np.arange(24), images)
    return torch.from_numpy(images[:, None])


def under(name: str, pictures: Tensor, first: int = 0) -> Tensor:
    return CONDITIONS[name](pictures, torch.arange(first, first + len(pictures)))


def ink(pictures: Tensor) -> Tensor:
    return 255 - pictures.double()


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition_is_of_each_picture_by_itself(pictures: Tensor, name: str) -> None:
    before = pictures.clone()
    changed = under(name, pictures)
    assert torch.equal(pictures, before)
    assert changed.dtype == torch.uint8 and changed.shape == pictures.shape
    assert torch.equal(under(name, pictures), changed)
    parts = torch.cat([under(name, pictures[:7]), under(name, pictures[7:], 7)])
    # Sums of another order may round one pixel in a thousand the other way.
    differing = parts != changed
    assert differing.double().mean() < 0.001 and int((parts.int() - changed.int()).abs().max()) <= 1
    assert name == "inverted polarity" or not torch.equal(changed, pictures)


def test_lines_and_ink(pictures: Tensor) -> None:
    plain = ink(pictures)
    thinner, thicker, much = (
        ink(under(f"{which} lines", pictures)) for which in ("thinner", "thicker", "much thicker")
    )
    assert (thinner <= plain).all() and (plain <= thicker).all() and (thicker <= much).all()
    assert thinner.sum() < 0.9 * plain.sum() and 1.1 * plain.sum() < thicker.sum() < much.sum()
    assert (ink(under("fainter ink", pictures)) - plain * 0.3).abs().max() <= 0.51
    assert (ink(under("darker ink", pictures)) - (plain * 2.5).clamp(max=255)).abs().max() <= 0.51


def test_places_and_sizes(pictures: Tensor) -> None:
    plain = ink(pictures)
    # 1/16 of 32 px is 2 px, and the margin is as wide, so that no ink is lost.
    right, left = (ink(under(name, pictures)) for name in ("shifted right and down", "shifted left and up"))
    assert torch.equal(right[:, :, 2:, 2:], plain[:, :, :-2, :-2]) and not right[:, :, :2].any()
    assert torch.equal(left[:, :, :-2, :-2], plain[:, :, 2:, 2:]) and not left[:, :, -2:].any()
    mark = torch.full((1, 1, 32, 32), 255, dtype=torch.uint8)
    mark[0, 0, 4:6, 15:17] = 0

    def centre(name: str) -> tuple[float, float]:
        found = ink(under(name, mark))[0, 0]
        places = torch.arange(32.0) + 0.5 - 16
        return float((found.sum(0) * places).sum() / found.sum()), float((found.sum(1) * places).sum() / found.sum())

    radians = np.radians(10)
    assert centre("turned right 10°") == pytest.approx((11 * np.sin(radians), -11 * np.cos(radians)), abs=0.05)
    assert centre("turned left 10°") == pytest.approx((-11 * np.sin(radians), -11 * np.cos(radians)), abs=0.05)
    assert centre("smaller, 75 %") == pytest.approx((0, -11 * 0.75), abs=0.1)
    assert centre("larger, 114 %") == pytest.approx((0, -11 * 8 / 7), abs=0.1)


def test_quality(pictures: Tensor) -> None:
    plain = ink(pictures)
    for name in ("blurred", "half the resolution", "a third of the resolution", "JPEG, quality 20"):
        changed = ink(under(name, pictures))
        # A JPEG's ripples are cut off where they would be lighter than paper.
        assert float(changed.sum()) == pytest.approx(float(plain.sum()), rel=0.2 if "JPEG" in name else 0.05), name
        assert 2 < (changed - plain).abs().mean() < 60, name
    noise = (ink(under("noise, uncleaned", pictures)) - plain)[(plain > 100) & (plain < 155)]
    assert float(noise.std()) == pytest.approx(0.05 * 255, rel=0.1)
    assert not torch.equal(under("noise, uncleaned", pictures), under("noise, uncleaned", pictures, 1))


def test_inverted_pictures_are_read_as_predict_reads_them(pictures: Tensor) -> None:
    changed = under("inverted polarity", pictures)
    for before, after in zip(pictures[:, 0].numpy(), changed[:, 0].numpy(), strict=True):
        assert np.array_equal(after, fit_square(before, 32))


def test_table_and_plot(small_pack: Path, tmp_path: Path) -> None:
    evaluator = make_evaluator(
        checkpoint(tmp_path, pack_charset(small_pack)), small_pack, "test", folder=tmp_path / "eval"
    )
    plain = evaluator.evaluation()
    named: list[str] = []
    rows = evaluate_conditions(evaluator, plain, Interrupted(0), named.append)
    assert named == list(CONDITIONS) and [row.name for row in rows] == [PLAIN, *CONDITIONS]
    # Until all files are written nothing has to be predicted again.
    resumed: list[int] = []
    again = Interrupted(99)
    assert evaluate_conditions(evaluator, plain, again, on_resume=resumed.append) == rows
    assert again.done == 0 and resumed == [24] * len(CONDITIONS)
    write_report(tmp_path, plain, conditions=rows)
    lines = list(csv.DictReader((tmp_path / "robustness.csv").read_text("utf-8-sig").splitlines()))
    assert [line["condition"] for line in lines] == [row.name for row in rows]
    for line in lines:
        difference = float(line["recall"]) - float(lines[0]["recall"])
        assert int(line["n"]) == 24 and float(line["difference"]) == pytest.approx(difference, abs=2e-6)
    svg = ElementTree.parse(tmp_path / "robustness.svg").getroot()
    shown = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {row.name for row in rows} <= set(shown) and {f"{row.recall:.2%}" for row in rows} <= set(shown)
    assert len(list(svg.iter("{http://www.w3.org/2000/svg}circle"))) == len(rows)
