"""Judge a checkpoint on a split: each sample once, whatever the batch size."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hcr.charset import Charset
from hcr.errors import DataError, UsageError
from hcr.evaluation.metrics import Predictions, Summary, summarise
from hcr.feed.loader import Loader
from hcr.feed.order import SequentialBatches
from hcr.layout import splits_of
from hcr.models import Recognizer, load_recognizer
from hcr.pack.store import open_pack
from hcr.progress import Progress, silent

# How many answers are kept for each sample.
TOP = 10


@dataclass(frozen=True)
class Evaluation:
    """A checkpoint's predictions on a split, their summary, and what they were made from."""

    predictions: Predictions
    summary: Summary
    charset: Charset
    checkpoint: Path
    pack: Path
    split: str
    pack_digest: str
    arch: str
    seconds: float


@torch.inference_mode()
def evaluate(model: Recognizer, loader: Loader, device: str = "cpu", progress: Progress = silent) -> Predictions:
    """Let `model`, in eval mode and on `device`, name every sample that `loader` gives.

    Raises: DataError for a damaged block; there are no figures of a part.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    for batch in loader:
        with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda"):
            logits = model(batch.images.to(device, non_blocking=True))
        score, top = logits.softmax(1).topk(min(TOP, logits.shape[1]))
        parts.append((batch.index.numpy(), batch.labels.numpy(), top.cpu().numpy(), score.cpu().numpy()))
        progress(len(batch.labels), loader.batches.n)
    return Predictions(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def evaluate_checkpoint(
    checkpoint: Path,
    pack: Path,
    split: str,
    *,
    batch_size: int = 256,
    workers: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> Evaluation:
    """Judge the averaged weights of `checkpoint` on one split of `pack`; `progress` counts samples.

    Raises: UsageError for a split that the pack lacks; DataError where checkpoint or pack is damaged, or where their
    charset or size differ.
    """
    available = splits_of(pack)
    if split not in available:
        raise UsageError(f"{pack}: no split {split!r}; it has {', '.join(available)}: choose one with --split")
    model = load_recognizer(checkpoint, device)
    reader = open_pack(pack / f"{split}.lmdb")
    reader.charset.require_same(model.charset, str(reader.path), str(checkpoint))
    if reader.size != model.size:
        raise DataError(
            f"{reader.path}: pictures of {reader.size} px, expected {model.size} as {checkpoint} was trained on"
        )
    loader = Loader(
        reader.path, SequentialBatches(len(reader), batch_size), workers=workers, pin_memory=device == "cuda"
    )
    began = time.monotonic()
    predictions = evaluate(model, loader, device, progress)
    return Evaluation(
        predictions=predictions,
        summary=summarise(predictions, len(model.charset)),
        charset=model.charset,
        checkpoint=checkpoint,
        pack=pack,
        split=split,
        pack_digest=reader.digest,
        arch=model.arch,
        seconds=time.monotonic() - began,
    )
