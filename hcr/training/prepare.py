"""Settings, pack and checkpoint brought together, or refused where they do not fit.

Nothing is written here, so that what is refused leaves nothing behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hcr.charset import Charset
from hcr.errors import DataError, UsageError
from hcr.feed.order import steps_per_epoch
from hcr.feed.resident import resident_bytes
from hcr.layout import checkpoints, splits_of
from hcr.models import Recognizer
from hcr.models.fine_tuning import transfer
from hcr.pack.store import PackReader, open_pack
from hcr.training import checkpoint
from hcr.training.config import Execution, TrainConfig, config_for
from hcr.training.observer import Observer
from hcr.training.ranks import Ranks
from hcr.training.state import TrainState


@dataclass(frozen=True)
class Plan:
    """What a run is to do, all of it fitting together.

    pack: the folder. readers: of its train split, and of val where it has one. init: the checkpoint whose weights a new
    run begins with, None for random ones.
    """

    config: TrainConfig
    pack: Path
    readers: dict[str, PackReader]
    run: Path
    execution: Execution
    ranks: Ranks
    init: Path | None

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each split."""
        return {split: reader.digest for split, reader in self.readers.items()}

    @property
    def charset(self) -> Charset:
        """The characters of the pack."""
        return self.readers["train"].charset

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return steps_per_epoch(len(self.readers["train"]), self.config.batch_size)

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.per_epoch * self.config.epochs

    def network(self) -> Recognizer:
        """Make a network of the run's kind in eval mode on its device."""
        model = Recognizer(self.config.arch, self.charset, self.config.size).to(self.execution.device)
        return model.to(memory_format=torch.channels_last).eval()

    def state(self, found: dict[str, Any] | None, observer: Observer) -> TrainState:
        """Make the state of a checkpoint's content, or that of step 0, whose weights follow from the seed or `init`.

        Raises: DataError or UsageError for weights of another network, or a checkpoint of another pack.
        """
        torch.manual_seed(self.config.seed)
        # On the CPU, so that first weights do not depend on the device.
        model = Recognizer(self.config.arch, self.charset, self.config.size)
        if self.init and found is None:
            taken = transfer(model, self.init)
            observer.note(
                f"weights of {self.init}: {taken.shared:,} characters keep their rows, {taken.new:,} are new, "
                f"{taken.dropped:,} are not in the pack"
            )
        state = TrainState.of(model.to(self.execution.device), self.config)
        if found is not None:
            source = self.run / "checkpoints" / f"step-{found['step']:08d}.pt"
            path = str(self.readers["train"].path)
            self.charset.require_same(Charset(found["characters"]), path, str(source))
            if found["pack"] != self.digests:
                raise DataError(
                    f"{self.pack}: pack {self.digests}, but the run was started on {found['pack']}; "
                    "name that one with --data"
                )
            state.restore(found, source, self.ranks)
        return state


def find_start(run: Path, execution: Execution, *, resume: bool) -> tuple[dict[str, Any] | None, list[str]]:
    """Give the content of the newest valid checkpoint of `run`, None where it has none, and why newer ones are skipped.

    Raises: UsageError for a run that has checkpoints where nobody asked to resume it.
    """
    if checkpoints(run) and not resume:
        raise UsageError(f"{run}: has checkpoints; go on with --resume, or name another --run")
    return checkpoint.newest_valid(run, execution.device)


def choose_kernels(execution: Execution) -> None:
    """Let CUDA take the fastest kernels, or those that give the same bits each time."""
    if execution.device == "cuda":
        torch.backends.cudnn.benchmark = not execution.deterministic
        torch.set_float32_matmul_precision("high")
        torch.use_deterministic_algorithms(execution.deterministic)


def plan_run(
    given: dict[str, Any],
    pack: Path,
    run: Path,
    execution: Execution,
    ranks: Ranks,
    *,
    init: Path | None,
    found: dict[str, Any] | None,
) -> Plan:
    """Complete the settings somebody gave, and check them against pack, processes and the checkpoint `found`.

    Nothing is written. Raises: UsageError, DataError.
    """
    readers = {split: open_pack(pack / f"{split}.lmdb") for split in ("train", *splits_of(pack)) if split != "test"}
    reader = readers["train"]
    if not found:
        given = execution.usual() | {"size": reader.size} | given
    config = config_for(given, found and found["config"])
    if config.size != reader.size:
        raise DataError(
            f"{reader.path}: pictures of {reader.size} px, expected {config.size}: pack with --size {config.size}"
        )
    if len(reader) < config.batch_size:
        raise UsageError(f"--batch-size {config.batch_size}: {reader.path} has only {len(reader)} samples")
    if config.batch_size % ranks.world:
        raise UsageError(f"--batch-size {config.batch_size}: no multiple of the {ranks.world} processes that share it")
    if config.schedule == "plateau" and "val" not in readers:
        raise UsageError(f"--schedule plateau: {pack} has no val split to judge by; use --schedule cosine")
    if config.sync_bn and execution.device != "cuda":
        raise UsageError("--sync-bn: torch synchronises batch norm on CUDA only; use --device cuda")
    return Plan(config, pack, readers, run, execution, ranks, init)


def held(plan: Plan) -> str:
    """Say what --cache is about to read."""
    size = sum(resident_bytes(reader) for reader in plan.readers.values())
    cache, device = plan.execution.cache, plan.execution.device
    where = "in memory" if cache == "ram" or device == "cpu" else f"on {device}"
    return f"--cache {cache}: reading {' and '.join(plan.readers)}, {size:,} bytes, to hold {where}"
