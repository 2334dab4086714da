"""Let a checkpoint name every sample of a split, each once, whatever the batch size.

What is predicted is kept on disk as it grows, so that hours of work survive a Ctrl-C.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hcr.charset import Charset
from hcr.errors import DataError, Stopped
from hcr.evaluation.analysis import Evaluation, labels_in, open_split, samples_of, shared_charset
from hcr.evaluation.metrics import Predictions, summarise
from hcr.evaluation.predictions import read_predictions, write_predictions
from hcr.feed.loader import Loader
from hcr.feed.sampler import SequentialBatches
from hcr.files import read_json
from hcr.models import Recognizer, load_recognizer, read_model
from hcr.pack.store import PackReader, open_pack
from hcr.stop import Progress, StopFlag, silent

# Has the model seen what it is to be judged on: by the split itself, or by the source files behind it.
#
# A pack of the same files with another size or another draw of validation writers has another digest, so that the
# digest alone would let most of what was learnt by heart pass as a test.
_DONE_WITH = {"train": "trained", "val": "validated"}


def leakage(digests: dict[str, str], record: Path, reader: PackReader) -> str:
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


# What is predicted so far, on disk: a long evaluation that is stopped goes on where it was.
#
# Nothing but whole batches is kept, so the result has the same bits as an uninterrupted one, as long as the batches are
# of one size.
#
# A folder within the evaluation's, a file a condition; `forget` removes it when all files of the result are written.
PARTIAL = "partial"
SAVE_SECONDS = 60.0


def forget(folder: Path) -> None:
    """Drop what was kept in `folder` of an evaluation whose files are all written now."""
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)


class PartialPredictions:
    """The predictions of one evaluation so far, kept in a file while `stop` is open.

    key: says what is predicted by what; a file of another key is not taken up.
    seconds: spent on predicting, in all sittings. done: samples that were predicted in earlier ones.
    """

    def __init__(self, path: Path, key: str, total: int, stop: StopFlag) -> None:
        self.path, self.key, self.total, self.stop = path, key, total, stop
        self._parts: list[Predictions] = []
        self._before = 0.0
        if path.is_file():
            self._take_up()
        self.done = sum(len(part.index) for part in self._parts)
        self._began = self._saved = time.monotonic()

    def _take_up(self) -> None:
        try:
            predictions, facts = read_predictions(self.path)
        except DataError:
            return  # another program's file, or a damaged one: it is written anew
        if facts.get("key") == self.key:
            self._parts.append(predictions)
            self._before = float(facts["seconds"])

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def add(self, part: Predictions) -> None:
        """Keep the next batch; save all once a minute. Raises: Stopped after a signal, with all saved."""
        self._parts.append(part)
        if self.stop.name or time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()
        if self.stop.name:
            done = sum(len(part.index) for part in self._parts)
            raise Stopped(
                f"stopped by {self.stop.name} after {done:,} of {self.total:,} pictures; they are saved in "
                f"{self.path}: run the same command again to go on"
            )

    def save(self) -> None:
        """Write all predictions so far."""
        facts = {"key": self.key, "seconds": str(self.seconds)}
        write_predictions(self.path, self.predictions(), facts)
        self._saved = time.monotonic()

    def predictions(self) -> Predictions:
        """Return all predictions so far."""
        columns = zip(*(vars(part).values() for part in self._parts), strict=True)
        self._parts = [Predictions(*(np.concatenate(arrays) for arrays in columns))]
        return self._parts[0]


# How many answers are kept for each sample.
TOP = 10

# condition(images, index): images uint8[B, 1, S, S], changed in some way; index int64[B]: their places in the pack.
Condition = Callable[[Tensor, Tensor], Tensor]


class RestrictedClasses(nn.Module):
    """A recognizer that may answer only the characters of `charset`, in the order of that."""

    def __init__(self, model: Recognizer, charset: Charset) -> None:
        super().__init__()
        self.model, self.charset = model, charset
        device = next(model.parameters()).device
        self.columns = torch.tensor([model.charset.label(char) for char in charset.characters], device=device)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits float32[B, C] over the charset's characters."""
        logits: Tensor = self.model(images)[:, self.columns]
        return logits


class SomeBatches(SequentialBatches):
    """A batch sampler for a part of a split: the samples at `index` int64[N], in that order, the last batch short."""

    def __init__(self, index: np.ndarray, batch_size: int) -> None:
        super().__init__(len(index), batch_size)
        self.index = index

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, self.n, self.batch_size):
            yield self.index[start : start + self.batch_size]


def evaluate(
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
    labels = labels_in(model.charset, open_pack(loader.path).charset)
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
    return Predictions(
        *(np.concatenate(arrays) for arrays in zip(*(vars(part).values() for part in parts), strict=True))
    )


@dataclass(frozen=True)
class Evaluator:
    """A checkpoint's model and a split that fit together; `make_evaluator` makes it.

    index: int64[N], the samples to name. seen: as `leakage` says. only_shared: their characters differ. folder:
    where unfinished work is kept; None: nowhere.
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
        taken_up: Callable[[int], None] = lambda done: None,
        *,
        name: str = "plain",
        condition: Condition | None = None,
    ) -> tuple[Predictions, float]:
        """Name all samples under a condition called `name`; return the predictions, and the seconds spent on them.

        taken_up: hears how many were done in earlier sittings, where there are some.
        Raises: Stopped after a signal, with everything kept in the folder.
        """
        if self.folder is None:
            began = time.monotonic()
            found = evaluate(self.model, self._loader(self.index), progress, condition=condition)
            return found, time.monotonic() - began
        total = len(self.index)
        key = f"{self.digest} {self.reader.digest} {self.model.charset.digest} {self.reader.path.stem} {name}"
        with StopFlag() as stop:
            partial = PartialPredictions(self.folder / PARTIAL / f"{name.replace(' ', '-')}.npz", key, total, stop)
            if partial.done:
                taken_up(partial.done)
            if partial.done < total:
                loader = self._loader(self.index[partial.done :])
                evaluate(
                    self.model, loader, lambda count, _: progress(count, total), condition=condition, keep=partial.add
                )
                partial.save()
            return partial.predictions(), partial.seconds

    def evaluation(
        self, progress: Progress = silent, taken_up: Callable[[int], None] = lambda done: None
    ) -> Evaluation:
        """Name all samples as `predict` does, and sum up."""
        predictions, seconds = self.predict(progress, taken_up)
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

    def _loader(self, index: np.ndarray) -> Loader:
        batches = SomeBatches(index, self.batch_size)
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
) -> Evaluator:
    """Bring the averaged weights of `checkpoint` and one split of `pack` together, or refuse what does not fit.

    allow_seen: score data that the model learnt from all the same; the result is then marked. only_shared: where the
    charsets differ, leave out samples of characters that the model does not know, and let it answer only those that
    the pack has too.

    Raises: UsageError for a split that the pack lacks; DataError where checkpoint or pack is damaged, where their
    charset or size differ, and for data that was seen.
    """
    reader = open_split(pack, split)
    content = read_model(checkpoint)
    seen = leakage(content.get("pack", {}), checkpoint.parent.parent / "run.json", reader)
    if seen and not allow_seen:
        raise DataError(
            f"{checkpoint}: {seen}, {reader.path}, so its figures would be no test; score another split, or give "
            "--allow-seen, which marks every file"
        )
    model = load_recognizer(checkpoint, device)
    if reader.size != model.size:
        raise DataError(
            f"{reader.path}: pictures of {reader.size} px, expected {model.size} as {checkpoint} was trained on"
        )
    shared = shared_charset(reader, model.charset, str(checkpoint), only_shared=only_shared)
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return Evaluator(
        model=model if shared == model.charset else RestrictedClasses(model, shared).eval(),
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
    checkpoint: Path, pack: Path, split: str, *, progress: Progress = silent, **how: Any
) -> Evaluation:
    """Judge a checkpoint on one split of `pack`: `make_evaluator` with its arguments, then `Evaluator.evaluation`."""
    return make_evaluator(checkpoint, pack, split, **how).evaluation(progress)
