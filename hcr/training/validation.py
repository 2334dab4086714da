"""How good the averaged weights are on the val split: what decides which epoch is the best, no evaluation.

`evaluation` judges finished models in many ways; here loss and two counts are enough, summed over the processes, each
of which judges its share: every sample counts once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F

from hcr.models import Recognizer
from hcr.training.ranks import Ranks
from hcr.training.splits import Feed


@torch.inference_mode()
def validate(
    model: Recognizer,
    loader: Feed,
    autocast: Callable[[], AbstractContextManager[None]],
    ranks: Ranks,
    judged: Callable[[int], None],
) -> dict[str, float]:
    """Give val_loss (a mean, in nats), val_top1, val_top5 and val_n over all processes.

    judged: called after each batch, in all processes equally often, with the number of samples that all have judged.
    """
    loss, hits, samples = 0.0, torch.zeros(2, device=ranks.device), 0
    batches = iter(loader)
    whole, size = loader.batches.n, loader.batches.batch_size
    for start in range(0, whole, size):
        # The last one may have no sample for this process.
        batch = next(batches, None)
        if batch is not None:
            with autocast():
                logits = model(batch.images)
            loss += float(F.cross_entropy(logits, batch.labels, reduction="sum"))
            within = logits.topk(min(5, logits.shape[1])).indices == batch.labels[:, None]
            hits += torch.stack([within[:, 0].sum(), within.sum()])
            samples += len(batch.labels)
        judged(min(size, whole - start))
    loss, top1, top5, count = ranks.total(loss, *hits, samples)
    return {"val_loss": loss / count, "val_top1": top1 / count, "val_top5": top5 / count, "val_n": round(count)}
