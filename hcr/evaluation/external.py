"""Predictions of another system, evaluated as our own are.

They come as a table of characters, or as arrays of labels with the characters that these stand for. Numbers alone
would not do: they mean another character in each of the five label orders that are in use.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hcr.charset import Charset
from hcr.errors import DataError
from hcr.evaluation.analysis import Evaluation, open_split, samples_of, shared_charset
from hcr.evaluation.metrics import TOP, Predictions, summarise
from hcr.evaluation.predictions import read_arrays
from hcr.pack.store import PackReader
from hcr.text import counted


class Answers(NamedTuple):
    """What a file says, in its own labels: index int64[N], top int64[N, K] with -1 for none, score float32[N, K].

    target: int64[N], or None where it states none. charset: what the labels stand for.
    """

    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index
    target: np.ndarray | None
    top: np.ndarray
    score: np.ndarray
    charset: Charset


def evaluate_external(file: Path, pack: Path, split: str, *, only_shared: bool = False) -> Evaluation:
    """Evaluate the predictions in an .npz or .csv file (docs/formats.md) on one split of `pack`.

    only_shared: leave out samples and answers of characters that file and pack do not share.

    Raises: DataError where the file is damaged or does not fit the split: other characters, an index that is missing,
    double or out of range, a target that is not the pack's.
    """
    reader = open_split(pack, split)
    answers = _read_csv(file, reader.charset, only_shared) if file.suffix.lower() == ".csv" else _read_npz(file, reader)
    charset = shared_charset(reader, answers.charset, str(file), only_shared=only_shared)
    index = samples_of(reader, charset)
    row = _rows(file, answers.index, index, len(reader))
    target = reader.labels[index].astype(np.int64)
    # One more entry wherever labels are translated, so that the label -1 of no answer stays one.
    if answers.target is not None:
        stated = np.append(answers.charset.labels_in(reader.charset), -1)[answers.target[row]]
        _check_targets(file, stated, target, index, reader)
    top, score = answers.top[row, :TOP], answers.score[row, :TOP]
    top = np.append(answers.charset.labels_in(charset), -1)[top]
    # Answers that do not count leave no gap: the next best moves up.
    order = np.argsort(top < 0, axis=1, kind="stable")
    top, score = np.take_along_axis(top, order, 1), np.take_along_axis(score, order, 1)
    predictions = Predictions(index, reader.charset.labels_in(charset)[target], top, score)
    return Evaluation(
        predictions=predictions,
        summary=summarise(predictions, len(charset)),
        charset=charset,
        pack=pack,
        split=split,
        pack_digest=reader.digest,
        checkpoint=None,
        checkpoint_digest=None,
        arch=None,
        external=file,
        only_shared=answers.charset != reader.charset,
        left_out=len(reader) - len(index),
    )


def _rows(file: Path, stated: np.ndarray, index: np.ndarray, total: int) -> np.ndarray:
    """Return for each sample at `index` int64[N] the file's row about it, int64[N]; `stated` is the file's index."""
    outside = np.flatnonzero((stated < 0) | (stated >= total))
    if len(outside):
        raise DataError(f"{file}: index {stated[outside[0]]}: expected 0 to {total - 1}, positions in the split")
    times = np.bincount(stated, minlength=total)
    if (times > 1).any():
        raise DataError(f"{file}: index {times.argmax()} occurs {times.max()} times; name each sample once")
    missing = index[times[index] == 0]
    if len(missing):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(
            f"{file}: lacks index {missing[0]}{more}; name each of the {counted(len(index), 'sample')} once"
        )
    row = np.zeros(total, np.int64)
    row[stated] = np.arange(len(stated))
    rows: np.ndarray = row[index]
    return rows


def _check_targets(file: Path, stated: np.ndarray, target: np.ndarray, index: np.ndarray, reader: PackReader) -> None:
    wrong = np.flatnonzero(stated != target)
    if len(wrong):
        first = wrong[0]
        said = reader.charset[stated[first]] if stated[first] >= 0 else "a character it lacks"
        raise DataError(
            f"{file}: target of index {index[first]} is {said}, but {reader.path} has {reader.charset[target[first]]} "
            f"there ({len(wrong)} differ); are these predictions on another split or pack?"
        )


def _read_npz(file: Path, reader: PackReader) -> Answers:
    arrays = read_arrays(file)
    for name in ("index", "top"):
        if name not in arrays:
            raise DataError(f"{file}: lacks the array {name}; docs/formats.md, Evaluation, names them")
    index, top, target = arrays["index"], arrays["top"], arrays.get("target")
    score = arrays.get("score", np.full(top.shape, np.nan, np.float32))
    n = len(index) if index.ndim else 0
    expected = {"index": (index, (n,)), "top": (top, (n, *top.shape[1:2])), "score": (score, top.shape)}
    if target is not None:
        expected["target"] = target, (n,)
    for name, (array, shape) in expected.items():
        kinds, kind = ("f", "numbers") if name == "score" else ("iu", "integers")
        if array.shape != shape or array.dtype.kind not in kinds or 0 in array.shape:
            raise DataError(
                f"{file}: array {name} is {array.dtype}{list(array.shape)}; expected {kind} {list(shape)}, at least one"
            )
    charset = reader.charset
    if "characters" in arrays:
        characters = str(arrays["characters"])
        charset = Charset(characters)
        if charset.characters != characters:
            raise DataError(f"{file}: array characters is not in code-point order, or names a character twice")
    for name, array, least in (("top", top, -1), ("target", top if target is None else target, -1)):
        if array.min() < least or array.max() >= len(charset):
            found = f"labels {array.min()} to {array.max()}"
            raise DataError(f"{file}: array {name} has {found}, expected {least} to {len(charset) - 1}")
    _check_scores(file, score)
    return Answers(index.astype(np.int64), target, top.astype(np.int64), score.astype(np.float32), charset)


def _read_csv(file: Path, charset: Charset, only_shared: bool) -> Answers:
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            return _parse(file, csv.reader(text), charset, only_shared)
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not readable as CSV in UTF-8 ({error})") from None


def _parse(file: Path, lines: Iterator[list[str]], charset: Charset, only_shared: bool) -> Answers:
    head = next(lines, [])
    place = {name: number for number, name in enumerate(head)}
    if "score" in place:
        place["score1"] = place.pop("score")
    k = next(k for k in range(1, TOP + 2) if f"top{k}" not in place) - 1
    known = {"index", "target"} | {f"{kind}{number}" for kind in ("top", "score") for number in range(1, k + 1)}
    if not k or "index" not in place or not place.keys() <= known or len(place) < len(head):
        raise DataError(
            f"{file}: columns {', '.join(head) or 'none'}; expected index, target (or not), top1 to top10 as far as "
            "there are answers, and a score1 to score10 for them (or only score, of the first)"
        )
    index: list[int] = []
    targets: list[int] = []
    tops: list[list[int]] = []
    scores: list[list[float]] = []

    def label(char: str, name: str, number: int) -> int:
        if not char and name != "target":
            return -1
        if char in charset:
            return charset.label(char)
        if only_shared and name != "target":
            return -1
        raise DataError(
            f"{file}: line {number}: {name} {char!r} is not one of the pack's {counted(len(charset), 'character')}"
        )

    for number, row in enumerate(lines, 2):
        try:
            if len(row) != len(head):
                raise ValueError
            index.append(int(row[place["index"]]))
            scores.append(
                [float(row[place[name]] or "nan") if (name := f"score{i}") in place else nan for i in range(1, k + 1)]
            )
        except ValueError:
            raise DataError(
                f"{file}: line {number}: {','.join(row)[:60]!r}; expected {len(head)} cells, index and scores numbers"
            ) from None
        tops.append([label(row[place[f"top{i}"]], f"top{i}", number) for i in range(1, k + 1)])
        if "target" in place:
            targets.append(label(row[place["target"]], "target", number))
    score = np.array(scores, np.float32).reshape(-1, k)
    _check_scores(file, score)
    return Answers(
        np.array(index, np.int64),
        np.array(targets, np.int64) if "target" in place else None,
        np.array(tops, np.int64).reshape(-1, k),
        score,
        charset,
    )


def _check_scores(file: Path, score: np.ndarray) -> None:
    outside = (score < 0) | (score > 1)
    if outside.any():
        raise DataError(
            f"{file}: a score of {score[outside][0]:g}; expected probabilities from 0 to 1: give those, or no scores"
        )
