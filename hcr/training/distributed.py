"""The processes that train one network together, as torchrun starts them: which one this is, and what they agree on.

A single process is a world of 1, in which nothing is sent, so the trainer is written once. Only sums and flags are
sent, never objects: torch would pickle those.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from hcr.errors import HcrError, UsageError

# Seconds to wait for the other processes at the end.
PATIENCE = 5


@dataclass(frozen=True)
class Processes:
    """This process among `world`: its number `rank`, from 0, and the device that it computes on."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Tell whether this is the process that writes and speaks."""
        return self.rank == 0

    def any_of(self, *flags: bool | Tensor) -> list[bool]:
        """Return for each flag whether it is set in any process. All must call this, with the same flags."""
        if self.world == 1:
            return [bool(flag) for flag in flags]
        sent = torch.stack([torch.as_tensor(flag, device=self.device).reshape(()).int() for flag in flags])
        dist.all_reduce(sent, dist.ReduceOp.MAX)
        return [bool(flag) for flag in sent.tolist()]

    def all(self, *values: float | Tensor) -> list[list[float]]:
        """Return for each value those of all processes, in their order. All must call this."""
        sent = torch.zeros(len(values), self.world, dtype=torch.float64)
        sent[:, self.rank] = torch.tensor([float(value) for value in values], dtype=torch.float64)
        if self.world > 1:
            sent = sent.to(self.device)
            dist.all_reduce(sent)
        return sent.tolist()

    def total(self, *values: float | Tensor) -> list[float]:
        """Return the sum of each value over the processes, always added in the same order. All must call this."""
        return [sum(each) for each in self.all(*values)]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite `tensors` with those of the first process. All must call this."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Return when all processes have called this."""
        self.any_of(False)


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Be one of torchrun's processes while this is open; a program that torchrun did not start is a world of 1.

    On CUDA the device "cuda" is then this process's own. Raises: UsageError for more processes than GPUs on a machine;
    HcrError where another process is lost.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes(device=device)
        return
    if device == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"torchrun --nproc-per-node: process {local} of this machine has no GPU of its own, "
                f"there are {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(local)
    store, rank, world = next(rendezvous("env://"))
    # After a restart torchrun's store still holds the addresses of the processes that are gone, and a quick one would
    # read them before they are replaced (torch 2.15).
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"start {start}", store)  # type: ignore[attr-defined]
    dist.init_process_group("nccl" if device == "cuda" else "gloo", store=store, rank=rank, world_size=world)
    lost = False
    try:
        yield Processes(rank, world, device)
    except RuntimeError as error:
        lost = True
        # gloo's and nccl's errors are bare RuntimeErrors; what else torch raises keeps its traceback by --debug.
        text = str(error).splitlines()[0]
        raise HcrError(
            f"process {rank} of {world}: lost the others ({text}); torchrun --max-restarts with --resume continues "
            "from the last checkpoint"
        ) from error
    finally:
        if not lost:
            # A process that hangs up while another still reads the last answer may end that one.
            store.set(f"done {rank}", "")
            with suppress(RuntimeError):
                store.wait([f"done {other}" for other in range(world)], timedelta(seconds=PATIENCE))
        dist.destroy_process_group()
