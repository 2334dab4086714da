"""What a run does about numbers that are not finite and about memory that runs out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hcr.errors import HcrError
from hcr.feed.batch import Batch
from hcr.files import atomic_write
from hcr.training.memory import batch_that_fits
from hcr.training.prepare import Plan
from hcr.training.ranks import Ranks

# Steps in a row that are left out before the run goes back, and how often it does so with half the rate.
IN_ROW, HALVINGS = 3, 2


def keep_batch(run: Path, step: int, rank: int, batch: Batch) -> Path:
    """Write the batch after which a run gave up: images uint8[B, 1, S, S], labels and index int64[B], as .npz."""
    path = run / f"not-finite-step-{step:08d}{f'-process-{rank}' if rank else ''}.npz"
    arrays = {name: tensor.cpu().numpy() for name, tensor in batch._asdict().items()}
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)
    return path


def out_of_memory(plan: Plan, ranks: Ranks) -> HcrError:
    """Say how much memory a step took on this GPU, and which batch size should fit."""
    free, whole = torch.cuda.mem_get_info()
    peak = torch.cuda.max_memory_allocated()
    config = plan.config
    share = config.batch_size // ranks.world
    advice = f"--accumulate {2 * config.accumulate} computes the same steps in smaller parts"
    fits = batch_that_fits(plan, whole)
    if fits and fits < share:
        advice = f"--batch-size {fits * ranks.world} should fit, or {advice}"
    return HcrError(
        f"CUDA out of memory: {share} pictures of {config.size} px took {peak:,} bytes and more, of {whole:,} on this "
        f"GPU ({free:,} free now); {advice}"
    )
