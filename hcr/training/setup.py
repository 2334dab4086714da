"""Settings, pack and checkpoint brought together, or refused where they do not fit.

Nothing is written here, so that what is refused leaves nothing behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hcr.charset import Charset
from hcr.errors import DataError, UsageError
from hcr.feed.loader import resident_bytes
from hcr.feed.sampler import steps_per_epoch
from hcr.feed.synthetic import TRAINING_WRITERS, VALIDATION_WRITERS
from hcr.layout import checkpoints, splits_of
from hcr.models import Recognizer
from hcr.models.fine_tuning import transfer
from hcr.pack.store import PackReader, open_pack
from hcr.training.config import Execution, TrainConfig, config_for
from hcr.training.distributed import Processes
from hcr.training.observer import Observer
from hcr.training.splits import PackSplit, Split, SyntheticSplit
from hcr.training.state import TrainState, newest_valid
from hcr.training.step import Teacher

# What is drawn where nobody says; and the pictures that judge, or a quarter of an epoch's where those are fewer.
DRAWN_CHARSET = "level1"
JUDGED = 4096
# The share of drawn pictures that are cut out of pages where nobody says.
PAGES = 0.5


@dataclass(frozen=True)
class RunSetup:
    """What a run is to do, all of it fitting together.

    charset: what is learnt. pack: the folder, None where all is drawn. splits: "train", and "val" where there is one.
    init: the checkpoint whose weights a new run begins with, None for random ones. teacher: whose answers it learns.
    """

    config: TrainConfig
    charset: Charset
    pack: Path | None
    splits: dict[str, Split]
    run: Path
    execution: Execution
    processes: Processes
    init: Path | None
    teacher: Teacher | None

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each split."""
        return {name: split.digest for name, split in self.splits.items()}

    @property
    def packed(self) -> dict[str, PackSplit]:
        """The splits that lie in a pack."""
        return {name: split for name, split in self.splits.items() if isinstance(split, PackSplit)}

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return steps_per_epoch(len(self.splits["train"]), self.config.batch_size)

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

        Raises: DataError or UsageError for weights of another network, or a checkpoint of another pack or teacher.
        """
        torch.manual_seed(self.config.seed)
        # On the CPU, so that first weights do not depend on the device.
        model = Recognizer(self.config.arch, self.charset, self.config.size)
        for layer in model.modules():
            if isinstance(layer, nn.Dropout | nn.Dropout2d):
                layer.p *= self.config.dropout
        if self.init and found is None:
            taken = transfer(model, self.init)
            observer.note(
                f"weights of {self.init}: {taken.shared:,} characters keep their rows, {taken.new:,} are new, "
                f"{taken.dropped:,} are not {'drawn' if self.config.draw else 'in the pack'}"
            )
        state = TrainState.of(model.to(self.execution.device), self.config)
        if found is not None:
            source = self.run / "checkpoints" / f"step-{found['step']:08d}.pt"
            self.charset.require_same(Charset(found["characters"]), str(self.pack), str(source))
            if self.config.draw and found["pack"]["train"] != self.digests["train"]:
                raise DataError(
                    f"{self.run}: was drawn by {found['pack']['train']}, and here is {self.digests['train']}, which "
                    "draws otherwise; go on with the release named in its run.json, or start another --run"
                )
            if found["pack"] != self.digests:
                raise DataError(
                    f"{self.pack or 'no pack'}: pack {self.digests}, but the run was started on {found['pack']}; "
                    "name that one with --data"
                )
            if self.teacher and found["teacher"] != self.teacher.digest:
                raise DataError(
                    f"--teacher {self.teacher.path}: weights {self.teacher.digest}, but the run was started with "
                    f"{found['teacher']}; put those back, or start another --run"
                )
            state.restore(found, source, self.processes)
        return state


def find_start(run: Path, execution: Execution, *, resume: bool) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the content of the newest valid checkpoint of `run` (None without one), and why newer ones are skipped.

    Raises: UsageError for a run that has checkpoints where nobody asked to resume it.
    """
    if checkpoints(run) and not resume:
        raise UsageError(f"{run}: has checkpoints; go on with --resume, or name another --run")
    return newest_valid(run, execution.device)


def choose_kernels(execution: Execution) -> None:
    """Let CUDA take the fastest kernels, or those that give the same bits each time."""
    if execution.device == "cuda":
        torch.backends.cudnn.benchmark = not execution.deterministic
        torch.set_float32_matmul_precision("high")
        torch.use_deterministic_algorithms(execution.deterministic)


def set_up_run(
    given: dict[str, Any],
    pack: Path | None,
    run: Path,
    execution: Execution,
    processes: Processes,
    *,
    init: Path | None,
    found: dict[str, Any] | None,
) -> RunSetup:
    """Complete the settings somebody gave, and check them against pack, processes and the checkpoint `found`.

    Nothing is written. Raises: UsageError, DataError.
    """
    started = found and found["config"]
    draw = config_for(given, started).draw
    readers = _readers(pack, drawn=draw > 0)
    if not found:
        own = {"charset": DRAWN_CHARSET, "pages": PAGES} if draw else {"size": readers["train"].size}
        given = execution.usual() | own | given
    config = config_for(given, started)
    if config.charset and not draw:
        raise UsageError(f"--charset {config.charset}: names what --draw draws; a pack has its own characters")
    if config.font and not draw:
        raise UsageError(f"--font {config.font[0]}: names what --draw draws with; a pack has its own pictures")
    if config.pages and not draw:
        raise UsageError(f"--pages {config.pages}: says how --draw draws; a pack has its own pictures")
    for reader in readers.values():
        if config.size != reader.size:
            raise DataError(
                f"{reader.path}: pictures of {reader.size} px, expected {config.size}: pack with --size {config.size}"
            )
    if draw:
        # A file of characters may have changed since.
        charset = Charset(found["characters"]) if found else Charset.named(config.charset)
    else:
        charset = readers["train"].charset
    splits: dict[str, Split] = {name: PackSplit(reader, charset) for name, reader in readers.items()}
    if draw:
        splits = _drawn(config, charset) | splits
    if len(splits["train"]) < config.batch_size:
        place = f"--draw {draw} draws" if draw else f"{readers['train'].path} has"
        raise UsageError(f"--batch-size {config.batch_size}: {place} only {len(splits['train'])} samples")
    if config.batch_size % processes.world:
        raise UsageError(
            f"--batch-size {config.batch_size}: no multiple of the {processes.world} processes that share it"
        )
    if config.schedule == "plateau" and "val" not in splits:
        raise UsageError(f"--schedule plateau: {pack} has no val split to judge by; use --schedule cosine")
    if config.sync_bn and execution.device != "cuda":
        raise UsageError("--sync-bn: torch synchronises batch norm on CUDA only; use --device cuda")
    teacher = Teacher(Path(config.teacher), charset, config.size, execution.device) if config.teacher else None
    return RunSetup(config, charset, pack, splits, run, execution, processes, init, teacher)


def _readers(pack: Path | None, *, drawn: bool) -> dict[str, PackReader]:
    """Open the splits of a pack that a run needs: val is enough where training pictures are drawn."""
    if pack is None:
        if drawn:
            return {}
        raise UsageError("nothing to train on: name a pack with --data, or give --draw")
    if drawn and "val" not in splits_of(pack):
        raise UsageError(f"{pack}: has no val split to judge by; leave --data out to judge by drawn handwriting")
    names = ["val"] if drawn else ["train", *splits_of(pack)]
    return {name: open_pack(pack / f"{name}.lmdb") for name in names if name != "test"}


def _drawn(config: TrainConfig, charset: Charset) -> dict[str, Split]:
    """Return what is drawn: to learn from by the run's seed, to judge by the same for all runs, pages as often."""
    judged, fonts = max(1, min(JUDGED, config.draw // 4)), tuple(map(Path, config.font))
    shared: dict[str, Any] = {"size": config.size, "fonts": fonts, "pages": config.pages}
    taught = bool(config.pages and config.teacher)
    return {
        "train": SyntheticSplit(charset, config.draw, TRAINING_WRITERS, config.seed, taught=taught, **shared),
        "val": SyntheticSplit(charset, judged, VALIDATION_WRITERS, 0, **shared),
    }


def held(plan: RunSetup) -> str:
    """Say what --cache is about to read."""
    size = sum(resident_bytes(split.reader) for split in plan.packed.values())
    cache, device = plan.execution.cache, plan.execution.device
    where = "in memory" if cache == "ram" or device == "cpu" else f"on {device}"
    return f"--cache {cache}: reading {' and '.join(plan.packed)}, {size:,} bytes, to hold {where}"
