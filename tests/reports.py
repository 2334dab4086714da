"""An evaluation with everything that a page stumbles over, and its report.html, for the tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from hcr.charset import Charset
from hcr.corpus.find import find_corpus
from hcr.corpus.gnt import encode_record
from hcr.evaluation.analysis import Evaluation, analyse
from hcr.evaluation.compare import Comparison, compare
from hcr.evaluation.groups import Row
from hcr.evaluation.metrics import Predictions, summarise
from hcr.evaluation.page import html
from hcr.pack.config import PackConfig
from hcr.pack.packer import pack
from hcr.pack.store import open_reader

# Characters that HTML and scripts stumble over, look-alikes, and enough others for a hundred pairs.
CHARACTERS = Charset([*"<&\"'A", *"已己巳人入八", *Charset.level1().characters[:129]])
HOSTILE = "a\"'><script>alert(1)<"  # a writer, and so a file's name and an origin
WRITERS = ("1001", "1002", HOSTILE)
CURVES = [{"epoch": n, "step": 9 * n, "train_loss": 3 / n, "train_top1": 1 - 0.9 / n} for n in (1, 2, 3)]
CURVES = [row | {"val_loss": row["train_loss"] / 2, "val_top1": 0.9} for row in CURVES]
CONDITIONS = [
    Row("as they are", 9, 100, 90, 99, 0.9, 0.82, 0.95, 0.9),
    Row(HOSTILE, 9, 100, 50, 80, 0.5, 0.36, 0.55, 0.5),
    Row("thinner", 9, 100, 70, 80, 0.7, 0.6, 0.8, 0.5),
    Row("darker", 9, 100, 95, 80, 0.95, 0.9, 0.98, 0.5),
]
ABSENT = CHARACTERS[7]  # has no sample in the test split


def evaluated(folder: Path) -> Evaluation:
    """Pack 139 characters of 3 writers in `folder`, and predict them by nobody, two fifths wrong, with scores."""
    random = np.random.default_rng(5)
    for split, writers in (("train", ("0001",)), ("test", WRITERS)):
        (folder / "raw" / split).mkdir(parents=True)
        for writer in writers:
            pictures = random.integers(0, 256, (len(CHARACTERS), 20, 20), np.uint8) | np.uint8(128)
            records = [
                encode_record(char, picture)
                for char, picture in zip(CHARACTERS.characters, pictures, strict=True)
                if split == "train" or char != ABSENT
            ]
            (folder / "raw" / split / f"{writer}.gnt").write_bytes(b"".join(records))
    pack(find_corpus([folder / "raw"], allowed=None, numbering=CHARACTERS), folder / "odd-32", PackConfig(size=32))
    reader = open_reader(folder / "odd-32" / "test.lmdb")
    target, classes = reader.labels.astype(np.int64), len(reader.charset)
    top = (target[:, None] + np.arange(10)) % classes
    wrong = np.flatnonzero(random.random(len(target)) < 0.4)
    top[wrong] = np.roll(top[wrong], random.integers(1, 3), axis=1)
    score = np.sort(random.dirichlet(np.ones(10), len(target)).astype(np.float32), axis=1)[:, ::-1]
    predictions = Predictions(np.arange(len(target)), target, top, score)
    summary = summarise(predictions, classes)
    run = Path("artifacts/first & <best>/checkpoints/best.pt")
    return Evaluation(
        predictions,
        summary,
        reader.charset,
        folder / "odd-32",
        "test",
        reader.digest,
        run,
        "00ff",
        "compact",
        seconds=2.0,
    )


def compared(evaluation: Evaluation) -> Comparison:
    """With another run, which misreads 40 pictures more."""
    before = evaluation.predictions
    top = before.top.copy()
    more = np.flatnonzero(before.hit)[:40]
    top[more] = np.roll(top[more], 1, axis=1)
    found = compare(before, replace(before, top=top), len(CHARACTERS))
    return replace(found, other="artifacts/<other>/predictions.npz")


def written(evaluation: Evaluation, path: Path) -> Path:
    """Write the report with everything that it can hold."""
    html.write_html(path, evaluation, analyse(evaluation), CURVES, compared(evaluation), CONDITIONS)
    return path
