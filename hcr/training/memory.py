"""How much memory a step takes, measured with a few pictures instead of computed from a table of layers.

Tensors that wait for the backward pass are counted, on any device. That leaves out tensors that live for a moment only:
at 64 px on a CPU a process grew by 122 MB in a step of 64 pictures of the compact network where 92 were counted, and by
204 MB in one of 16 of efficientnet_v2_s where 206 were. So a batch size that should fit on a GPU is tried there.
"""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from hcr.errors import UsageError
from hcr.feed.sampler import Batch
from hcr.text import counted
from hcr.training.distributed import Processes
from hcr.training.observer import NullObserver, Observer
from hcr.training.setup import RunSetup
from hcr.training.step import Stepper

# Pictures of the two measured steps, through which a line is drawn.
FEW, MORE = 2, 4
# Allocators round up and leave gaps.
USABLE = 0.9
# Of --find-batch: steps before the clock runs, and steps that are timed.
WARM, TIMED = 3, 10


@dataclass(frozen=True)
class Memory:
    """Bytes that training takes on its device, in one process.

    weights: parameters and buffers, a teacher's, too. upkeep: gradients, AdamW's two moments and the averaged weights.
    step: a step's share that does not depend on its pictures (weights at another precision). picture: a step's share
    for each picture. pictures: how many are computed at a time (a count, no bytes).
    """

    weights: int
    upkeep: int
    step: int
    picture: int
    pictures: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.upkeep + self.step + self.picture * self.pictures


def estimate(setup: RunSetup) -> Memory:
    """Return what a step of `setup` takes on its device, measured.

    Raises: torch.OutOfMemoryError where there is no room for a few pictures.
    """
    stepper = _stepper(setup)
    state = stepper.state
    networks = [state.model, setup.teacher] if setup.teacher else [state.model]
    weights = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
    few, more = (_waiting(partial(_take, stepper, setup, count), weights) for count in (FEW, MORE))
    step, picture = line_through((FEW, few), (MORE, more))
    moments = [value for kept in state.optimizer.state.values() for value in kept.values()]
    gradients = [parameter.grad for parameter in stepper.parameters if parameter.grad is not None]
    upkeep = _bytes([*gradients, *moments, *state.ema.values()])
    return Memory(_bytes(weights), upkeep, step, picture, math.ceil(setup.config.batch_size / setup.config.accumulate))


def batch_that_fits(setup: RunSetup, capacity: int) -> int | None:
    """Return the largest multiple of 8 pictures a process whose step should fit into 90 % of `capacity` bytes.

    Return None where none does. On CUDA such a step is tried, and smaller ones where it does not fit beside what is
    there already. While a torch.OutOfMemoryError is handled this frees what the failed step held: nothing can be read
    from that error's frames afterwards.
    """
    if error := sys.exception():
        traceback.clear_frames(error.__traceback__)
    if setup.execution.device == "cuda":
        torch.cuda.empty_cache()
    accumulate = setup.config.accumulate
    with suppress(torch.OutOfMemoryError):
        fits = fitting(estimate(setup), accumulate, capacity)
        if setup.execution.device == "cuda":
            stepper = _stepper(setup)
            while fits and not _fits(stepper, setup, math.ceil(fits / accumulate)):
                fits = fits * 3 // 4 // 8 * 8
        return fits or None
    return None


def fitting(memory: Memory, accumulate: int, capacity: int) -> int:
    """Return the largest multiple of 8 pictures, in `accumulate` parts, that 90 % of `capacity` should hold."""
    left = capacity * USABLE - replace(memory, pictures=0).total
    return max(0, int(left // memory.picture)) * accumulate // 8 * 8


def line_through(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    """Return offset, at least 0, and slope, at least 1, of the line through two points (pictures, bytes)."""
    slope = max(1, (second[1] - first[1]) // (second[0] - first[0]))
    return max(0, first[1] - slope * first[0]), slope


def find_batch(setup: RunSetup, observer: Observer) -> list[tuple[int, float, int]]:
    """Take a few steps of 8, 16, 32 … pictures until memory or the training split ends; weights stay as they are.

    Return (batch size, pictures a second, peak bytes) for each that fitted, smallest first. The speed leaves reading
    pictures out. Raises: UsageError on a CPU, where a larger batch is no faster.
    """
    if setup.execution.device != "cuda":
        raise UsageError("--find-batch: measures a GPU's memory, and this is a CPU; use --device cuda, or --dry-run")
    stepper, found = _stepper(setup), []
    size = 8
    with suppress(torch.OutOfMemoryError):
        while size <= len(setup.splits["train"]):
            observer.note(f"trying {counted(size, 'picture')} a step")
            torch.cuda.reset_peak_memory_stats()
            for _ in range(WARM):
                _take(stepper, setup, size)
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(TIMED):
                _take(stepper, setup, size)
            torch.cuda.synchronize()
            speed = size * TIMED / (time.perf_counter() - start)
            found.append((size, speed, torch.cuda.max_memory_allocated()))
            size *= 2
    return found


def _stepper(setup: RunSetup) -> Stepper:
    """Return a stepper for the run's kind of steps: in a single process, each step in one part."""
    config = replace(setup.config, accumulate=1, sync_bn=False)
    state = replace(setup, config=config, init=None).state(None, NullObserver())
    # fp16's first scale is usually too high, and a step that is left out makes no moments.
    state.scaler = torch.amp.GradScaler(setup.execution.device, enabled=False)
    state.model.train()
    return Stepper(config, state, Processes(device=setup.execution.device), setup.teacher, compiled=False)


def _take(stepper: Stepper, setup: RunSetup, count: int) -> None:
    """Take a step with `count` pictures of noise, at a learning rate of 0."""
    device, side = setup.execution.device, setup.config.size
    images = torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, device=device)
    labels = torch.randint(0, len(setup.charset), (count,), device=device)
    stepper.take(Batch(images, labels, torch.arange(count)), 0.0)


def _fits(stepper: Stepper, setup: RunSetup, count: int) -> bool:
    """Try a step on a GPU; return whether it fitted."""
    try:
        _take(stepper, setup, count)
    except torch.OutOfMemoryError:
        # The step's tensors are freed when this block ends.
        pass
    else:
        return True
    stepper.state.optimizer.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    return False


def _waiting(step: Callable[[], None], weights: Iterable[Tensor]) -> int:
    """Return the bytes that wait for the backward pass of `step`, those of `weights` left out."""
    known = {tensor.untyped_storage().data_ptr() for tensor in weights}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Tensors often share their memory: the same one may be saved by two layers.
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        # The tensor itself would keep itself alive: it may be the result of the operation that saves it.
        return tensor.detach()

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(found.values())


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, shared ones counted once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
