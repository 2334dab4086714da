"""Counts in messages agree with their nouns: "1 writer", "2 writers"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hcr.text import counted

HCR = Path(__file__).parents[1] / "hcr"
# Nouns that a message counts. A rate, as in "800 pictures a second", and a name before the noun are none of these.
PLURAL = re.compile(
    r" (other |training |unseen )?(archives|characters|checkpoints|classes|epochs|files|folders|fonts|images|labels"
    r"|lines|pictures|problems|processes|runs|samples|sizes|steps|strokes|threads|writers)\b(?! a second|/s)"
)
# A list of counts before the noun, or never one.
EXCEPTIONS = {
    "cli/data.py: ' + '.join((f'{count:,} {name}' for name, count in counts.items()))",
    "cli/data.py: counts",
    "cli/train.py: samples",
    "pack/resume.py: len(writers)",
    "pack/resume.py: self._every",
}


@pytest.mark.parametrize(
    ("count", "noun", "expected"),
    [
        (0, "writer", "0 writers"),
        (1, "writer", "1 writer"),
        (2, "class", "2 classes"),
        (3755, "class", "3,755 classes"),
    ],
)
def test_a_count_agrees_with_its_noun(count: int, noun: str, expected: str) -> None:
    assert counted(count, noun, "classes" if noun == "class" else "") == expected


def uncounted() -> Iterator[str]:
    """Where a number stands before a noun that is a plural whatever the number is."""
    for path in sorted(HCR.rglob("*.py")):
        for text in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(text, ast.JoinedStr):
                continue
            for value, following in zip(text.values, text.values[1:], strict=False):
                if (
                    isinstance(value, ast.FormattedValue)
                    and isinstance(following, ast.Constant)
                    and PLURAL.match(str(following.value))
                ):
                    yield f"{path.relative_to(HCR)}: {ast.unparse(value.value)}"


def test_messages_count_by_counted() -> None:
    assert set(uncounted()) == EXCEPTIONS
