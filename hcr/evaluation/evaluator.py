"""Evaluate a model on a split: each sample is named once, whatever the batch size.

Three steps: `make_evaluator` brings weights and split together, or refuses what does not fit or was seen in training
(`leakage`); `Evaluator.predict` names the samples; `Evaluator.evaluation` sums up. Predictions are kept on disk as they
grow (`PartialPredictions`), so that hours of work survive a Ctrl-C. Only whole batches are kept, so a resumed
evaluation has the same bits as an uninterrupted one with batches of the same size.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hcr.charset import Charset
from hcr.errors import DataError, Stopped
from hcr.evaluation.analysis import Evaluation, open_split, samples_of, shared_charset
from hcr.evaluation.metrics import TOP, Predictions, summarise
from hcr.evaluation.predictions import read_predictions, write_predictions
from hcr.feed.loader import Loader
from hcr.feed.sampler import SequentialBatches
from hcr.files import short_digest
from hcr.models import Recognizer, load_recognizer, read_model
from hcr.models.released import weights_digest
from hcr.pack.store import PackReader, open_reader
from hcr.records import read_run_record
from hcr.stop import Progress, StopFlag, silent
from hcr.text import counted

# The folder of unfinished work inside an evaluation's folder; it has a file for each condition.
PARTIAL = "partial"
# Unfinished work is saved this often.
SAVE_SECONDS = 60.0
# What a model did with a split that its checkpoint names.
_DONE_WITH = {"train": "trained", "val": "validated"}

# condition(images, index): images uint8[B, 1, S, S], changed in some way; index int64[B]: their places in the pack.
Condition = Callable[[Tensor, Tensor], Tensor]


class RestrictedClasses(nn.Module):
    """A recognizer that may answer only the characters of `charset`, all of which it knows, in their order."""

    def __init__(self, model: Recognizer, charset: Charset) -> None:
        super().__init__()
        self.model, self.charset = model, charset
        device = next(model.parameters()).device
        self.columns = torch.from_numpy(charset.labels_in(model.charset)).to(device)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits float32[B, C] over the characters of `charset` for images uint8[B, 1, S, S]."""
        logits: Tensor = self.model(images)[:, self.columns]
        return logits


class SubsetBatches(SequentialBatches):
    """A batch sampler for a part of a split: the samples at `index` int64[N], in that order, the last batch short."""

    def __init__(self, index: np.ndarray, batch_size: int) -> None:
        super().__init__(len(index), batch_size)
        self.index = index

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, self.n, self.batch_size):
            yield self.index[start : start + self.batch_size]


def predict_all(
    model: Recognizer | RestrictedClasses,
    loader: Loader,
    progress: Progress = silent,
    *,
    condition: Condition | None = None,
    keep: Callable[[Predictions], None] | None = None,
) -> Predictions:
    """Let `model`, in eval mode and on the loader's device, name every sample that `loader` gives.

    Labels are the model's: a pack's are translated by their characters, and must all be among the model's. condition:
    changes the pictures first. keep: called with the predictions of each batch, as soon as there are some.

    Raises: DataError for a damaged block, HcrError for a worker that died; there are no figures of a part.
    """
    labels = open_reader(loader.path).charset.labels_in(model.charset)
    parts: list[Predictions] = []
    with torch.inference_mode():
        for batch in loader:
            images = condition(batch.images, batch.index) if condition else batch.images
            with torch.autocast("cuda", torch.bfloat16, enabled=loader.device == "cuda"):
                logits = model(images)
            score, top = logits.float().softmax(1).topk(min(TOP, logits.shape[1]))
            target = labels[batch.labels.cpu().numpy()]
            parts.append(Predictions(batch.index.numpy(), target, top.cpu().numpy(), score.cpu().numpy()))
            if keep:
                keep(parts[-1])
            progress(len(target), loader.batches.n)
    return _joined(parts)


def leakage(digests: dict[str, str], run: Path, reader: PackReader) -> str:
    """Say how a model saw a split before, as "validated on this split"; "" where it did not.

    The source files behind the splits are compared, too. A pack of the same files with another size or another draw of
    validation writers has another digest, so digests alone would let most of what was learnt by heart pass as a test.

    digests: of the splits that the model learnt from, as in its checkpoint. run: its folder, whose run.json lists their
    source files; where that is missing only the digests are compared.
    """
    for split, digest in digests.items():
        if digest == reader.digest:
            return f"{_DONE_WITH[split]} on this split"
    record = read_run_record(run)
    sources = reader.meta["sources"]
    for split, known in (record["pack"].get("sources", {}) if record else {}).items():
        shared = [source for source in sources if source["sha256"] in set(known)]
        if shared:
            samples = sum(source["samples"] for source in shared)
            return (
                f"{_DONE_WITH[split]} on {len(shared)} of the {len(sources)} source files of this split "
                f"({samples} of {counted(len(reader), 'sample')})"
            )
    return ""


class PartialPredictions:
    """The predictions of one evaluation so far, kept in the file `path`.

    key: says what is predicted by what; a file with another key is not resumed. total: samples of the whole
    evaluation. stop: the flag that ends it, which must be open. done: samples that were predicted in earlier sittings.
    """

    def __init__(self, path: Path, key: str, total: int, stop: StopFlag) -> None:
        self.path, self.key, self.total, self.stop = path, key, total, stop
        self._parts: list[Predictions] = []
        self._earlier_seconds = 0.0
        if path.is_file():
            self._resume()
        self.done = self._count()
        self._start = self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent on predicting, in all sittings."""
        return self._earlier_seconds + time.monotonic() - self._start

    def add(self, part: Predictions) -> None:
        """Keep the next batch; save all once a minute. Raises: Stopped after a signal, with all saved."""
        self._parts.append(part)
        if self.stop.name or time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()
        if self.stop.name:
            raise Stopped(
                f"stopped by {self.stop.name} after {self._count():,} of {counted(self.total, 'picture')}; they "
                "are saved in "
                f"{self.path}: run the same command again to resume"
            )

    def save(self) -> None:
        """Write all predictions so far."""
        write_predictions(self.path, self.predictions(), {"key": self.key, "seconds": str(self.seconds)})
        self._saved = time.monotonic()

    def predictions(self) -> Predictions:
        """Return all predictions so far."""
        self._parts = [_joined(self._parts)]
        return self._parts[0]

    def _resume(self) -> None:
        try:
            predictions, facts = read_predictions(self.path)
        except DataError:
            return  # another program's file, or a damaged one: it is overwritten
        if facts.get("key") == self.key:
            self._parts.append(predictions)
            self._earlier_seconds = float(facts["seconds"])

    def _count(self) -> int:
        return sum(len(part.index) for part in self._parts)


@dataclass(frozen=True)
class Evaluator:
    """A model and a split that fit together; `make_evaluator` makes it.

    checkpoint: the file of weights. index: int64[N], the samples to name. seen: as `leakage` says. only_shared: the
    charsets differ, and only shared characters count. folder: where unfinished work is kept; None: nowhere.
    """

    model: Recognizer | RestrictedClasses
    reader: PackReader
    index: np.ndarray
    checkpoint: Path
    digest: str
    arch: str
    seen: str
    only_shared: bool
    batch_size: int
    workers: int
    device: str
    folder: Path | None

    def predict(
        self,
        progress: Progress = silent,
        on_resume: Callable[[int], None] = lambda done: None,
        *,
        name: str = "plain",
        condition: Condition | None = None,
    ) -> tuple[Predictions, float]:
        """Name all samples under a condition called `name`; return the predictions, and the seconds spent on them.

        on_resume: called with the number of samples that were predicted in earlier sittings, where there are some.
        Raises: Stopped after a signal, with everything kept in the folder.
        """
        if self.folder is None:
            start = time.monotonic()
            predictions = predict_all(self.model, self._loader(self.index), progress, condition=condition)
            return predictions, time.monotonic() - start
        total = len(self.index)
        key = f"{self.digest} {self.reader.digest} {self.model.charset.digest} {self.reader.path.stem} {name}"
        with StopFlag() as stop:
            partial = PartialPredictions(self.folder / PARTIAL / f"{name.replace(' ', '-')}.npz", key, total, stop)
            if partial.done:
                on_resume(partial.done)
            if partial.done < total:
                loader = self._loader(self.index[partial.done :])
                predict_all(
                    self.model, loader, lambda count, _: progress(count, total), condition=condition, keep=partial.add
                )
                partial.save()
            return partial.predictions(), partial.seconds

    def evaluation(
        self, progress: Progress = silent, on_resume: Callable[[int], None] = lambda done: None
    ) -> Evaluation:
        """Name all samples as `predict` does, and sum up."""
        predictions, seconds = self.predict(progress, on_resume)
        return Evaluation(
            predictions=predictions,
            summary=summarise(predictions, len(self.model.charset)),
            charset=self.model.charset,
            pack=self.reader.path.parent,
            split=self.reader.path.stem,
            pack_digest=self.reader.digest,
            checkpoint=self.checkpoint,
            checkpoint_digest=self.digest,
            arch=self.arch,
            seconds=seconds,
            seen=self.seen,
            only_shared=self.only_shared,
            left_out=len(self.reader) - len(self.index),
        )

    def forget(self) -> None:
        """Remove the unfinished work, once all files of the evaluation are written."""
        if self.folder is not None:
            shutil.rmtree(self.folder / PARTIAL, ignore_errors=True)

    def _loader(self, index: np.ndarray) -> Loader:
        batches = SubsetBatches(index, self.batch_size)
        return Loader(self.reader.path, batches, workers=self.workers, device=self.device)


def make_evaluator(
    checkpoint: Path,
    pack: Path,
    split: str,
    *,
    batch_size: int = 256,
    workers: int = 0,
    device: str = "cpu",
    allow_seen: bool = False,
    only_shared: bool = False,
    folder: Path | None = None,
    model: Recognizer | None = None,
) -> Evaluator:
    """Bring weights and one split of `pack` together, or refuse what does not fit.

    checkpoint: a checkpoint, whose averaged weights count, or released weights. allow_seen: evaluate on data that the
    model learnt from all the same; the result is then marked. only_shared: where the charsets differ, leave out samples
    of characters that the model does not know, and let it answer only those that the pack has too. folder: where
    unfinished work is kept, and resumed from; None: nowhere. model: what was loaded from `checkpoint`, on `device`, and
    may have been changed since: the digest is then that of its own weights. None: load it.

    Raises: UsageError for a split that the pack lacks; DataError where weights or pack are damaged, where their
    charset or size differ, and for data that was seen.
    """
    reader = open_split(pack, split)
    content = read_model(checkpoint)
    seen = leakage(content.get("pack", {}), checkpoint.parent.parent, reader)
    if seen and not allow_seen:
        raise DataError(
            f"{checkpoint}: {seen}, {reader.path}, so its figures would be no test; score another split, or give "
            "--allow-seen, which marks every file"
        )
    with checkpoint.open("rb") as file:
        digest = short_digest(hashlib.file_digest(file, "sha256"))
    if model is None:
        model = load_recognizer(checkpoint, device)
    elif not _equal_weights(model.state_dict(), content["ema"]):
        digest = weights_digest(model.state_dict())
    if reader.size != model.size:
        raise DataError(
            f"{reader.path}: pictures of {reader.size} px, expected {model.size} as {checkpoint} was trained on"
        )
    shared = shared_charset(reader, model.charset, str(checkpoint), only_shared=only_shared)
    return Evaluator(
        model=(model if shared == model.charset else RestrictedClasses(model, shared)).eval(),
        reader=reader,
        index=samples_of(reader, shared),
        checkpoint=checkpoint,
        digest=digest,
        arch=model.arch,
        seen=seen,
        only_shared=model.charset != reader.charset,
        batch_size=batch_size,
        workers=workers,
        device=device,
        folder=folder,
    )


def evaluate_checkpoint(
    checkpoint: Path, pack: Path, split: str, *, progress: Progress = silent, **options: Any
) -> Evaluation:
    """Evaluate weights on one split of `pack`: `make_evaluator` with its options, then `Evaluator.evaluation`."""
    return make_evaluator(checkpoint, pack, split, **options).evaluation(progress)


def _equal_weights(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Tell whether two state dicts have the same keys and values, wherever they lie."""
    return one.keys() == other.keys() and all(torch.equal(one[key].cpu(), other[key].cpu()) for key in one)


def _joined(parts: list[Predictions]) -> Predictions:
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Predictions(*(np.concatenate(arrays) for arrays in columns))
