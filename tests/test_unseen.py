"""Fonts to judge by: every character that both have, and what a model gets wrong in most of them."""

from __future__ import annotations

from pathlib import Path

from tests.test_font import build_font
from tests.test_sweep import cells, run


def test_fonts_are_read_and_what_is_wrong_in_most_is_named(tmp_path: Path) -> None:
    right = build_font(tmp_path / "right.ttf", "一十口")
    boxes = build_font(tmp_path / "boxes.ttf", "一口", outline="口")
    more = build_font(tmp_path / "more.ttf", "一十", outline="口")
    report = run("unseen.py", right, boxes, more)
    assert cells(report, "right")[:5] == ["3", *["100.00%"] * 4], "as they are, and small"
    assert cells(report, "boxes")[:2] == ["2", "50.00%"] and cells(report, "more")[:2] == ["2", "0.00%"]
    assert cells(report, "一") == ["2 of 3", "口口"]
    assert "| 十 |" not in report, "wrong in one font of two"


def test_what_is_no_font_of_these_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.ttf").write_text("no font", "utf-8")
    assert run("unseen.py", tmp_path / "text.ttf", code=1).startswith(f"error: {tmp_path}/text.ttf: not a font (")
    latin = build_font(tmp_path / "latin.ttf", "A", outline="口")
    said = run("unseen.py", latin, code=1)
    assert said == f"error: {latin}: this font has none of the 3,755 characters; name one that has\n"
