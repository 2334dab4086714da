"""Has the model seen what it is to be judged on: by the split itself, or by the source files behind it.

A pack of the same files with another size or another draw of validation writers has another digest, so that the digest
alone would let most of what was learnt by heart pass as a test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hcr.files import read_json
from hcr.pack.store import PackReader

_DONE_WITH = {"train": "trained", "val": "validated"}


def seen_before(digests: dict[str, str], record: Path, reader: PackReader) -> str:
    """Say how a model saw a split before, as "validated on this split"; "" where it did not.

    digests: of the splits that the model learnt from, as in its checkpoint. record: its run.json, which lists their
    source files; where that is missing only the digests are compared.
    """
    for split, digest in digests.items():
        if digest == reader.digest:
            return f"{_DONE_WITH[split]} on this split"
    run: dict[str, Any] = read_json(record)["pack"] if record.is_file() else {}
    sources = reader.meta["sources"]
    for split, known in run.get("sources", {}).items():
        shared = [source for source in sources if source["sha256"] in set(known)]
        if shared:
            samples = sum(source["samples"] for source in shared)
            return (
                f"{_DONE_WITH[split]} on {len(shared)} of the {len(sources)} source files of this split "
                f"({samples} of {len(reader)} samples)"
            )
    return ""
