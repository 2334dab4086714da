"""Fonts to judge by: every character that both have, and what a model gets wrong in most of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hcr.layout import RELEASED
from hcr.models import Recognizer, load_recognizer
from hcr.preprocess.fit import fit_square
from tests.test_fonts import build_font
from tests.test_sweep import benchmark, cells, run


def test_fonts_are_read_and_what_is_wrong_in_most_is_named(tmp_path: Path) -> None:
    right = build_font(tmp_path / "right.ttf", "一十口")
    boxes = build_font(tmp_path / "boxes.ttf", "一口", outline="口")
    more = build_font(tmp_path / "more.ttf", "一十", outline="口")
    report = run("unseen.py", right, boxes, more)
    assert cells(report, "right")[:5] == ["3", *["100.00%"] * 4], "as they are, and small"
    assert cells(report, "boxes")[:2] == ["2", "50.00%"] and cells(report, "more")[:2] == ["2", "0.00%"]
    assert cells(report, "一") == ["2 of 3", "口口"]
    assert "| 十 |" not in report, "wrong in one font of two"


def test_small_glyphs_are_scaled_down_before_they_are_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unseen, seen = benchmark("unseen"), []
    font, answers = build_font(tmp_path / "font.ttf", "一十口"), unseen.answers

    def watched(model: Recognizer, images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        found: torch.Tensor = answers(model, images)
        return found

    monkeypatch.setattr(unseen, "answers", watched)
    monkeypatch.setattr(sys, "argv", ["unseen.py", str(font)])
    unseen.main()
    assert "| font |" in capsys.readouterr().out
    whole, small, _ = seen
    pictures, _ = unseen.glyphs(font, load_recognizer(RELEASED["level1"]))
    few = [unseen.rescale(24)(picture) for picture in pictures]
    assert [max(picture.shape) for picture in few] == [24] * 3
    for images, given in ((whole, pictures), (small, few)):
        assert np.array_equal(images[:, 0].numpy(), [fit_square(picture, 64) for picture in given])
    assert not torch.equal(whole, small)


def test_what_is_no_font_of_these_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.ttf").write_text("no font", "utf-8")
    assert run("unseen.py", tmp_path / "text.ttf", code=1).startswith(f"error: {tmp_path}/text.ttf: not a font (")
    latin = build_font(tmp_path / "latin.ttf", "A", outline="口")
    said = run("unseen.py", latin, code=1)
    assert said == f"error: {latin}: this font has none of the 3,755 characters; name one that has\n"
