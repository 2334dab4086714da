"""Words for messages: a count with its noun."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count and its noun: "1 writer", "3,755 characters".

    plural: where it is not the noun with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
