"""Pages that a reader in a hurry reads first stay short, in words and in lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST_MEAN = 20  # words a sentence


def sentences(page: Path) -> list[int]:
    """Words of each sentence of a page's running text, without code, tables, headings and pictures."""
    text = re.sub(r"```.*?```", " ", page.read_text("utf-8"), flags=re.S)
    text = re.sub(r"^\s*(\||#|!\[).*$", " ", text, flags=re.M)
    counts = [len(sentence.split()) for sentence in re.split(r"(?<=[.!?])\s+", text)]
    return [count for count in counts if count > 2]


@pytest.mark.parametrize(
    "name",
    ["README.md", "CONTRIBUTING.md", "docs/results.md", "docs/api.md", "docs/architecture.md", "docs/adding.md"],
)
def test_sentences_are_short(name: str) -> None:
    counts = sentences(ROOT / name)
    assert len(counts) > 5 and sum(counts) / len(counts) <= LONGEST_MEAN


@pytest.mark.parametrize(("name", "most"), [("README.md", 120), ("CONTRIBUTING.md", 32)])
def test_first_pages_are_short(name: str, most: int) -> None:
    assert len((ROOT / name).read_text("utf-8").splitlines()) <= most
