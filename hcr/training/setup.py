"""Settings, pack and checkpoint brought together, or refused where they do not fit.

In this order: which pack and run folder are meant, the setup of a run, and how it is put together and checked. Nothing
is written here, so that what is refused leaves nothing behind.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hcr.charset import Charset
from hcr.errors import DataError, UsageError
from hcr.feed.loader import resident_bytes
from hcr.feed.sampler import steps_per_epoch
from hcr.feed.synthetic import TRAINING_WRITERS, VALIDATION_WRITERS
from hcr.layout import (
    ARTIFACTS,
    RELEASED,
    checkpoints,
    find_pack,
    find_weights,
    is_drawn,
    pack_of,
    run_folder,
    splits_of,
)
from hcr.models import Recognizer
from hcr.models.fine_tuning import transfer
from hcr.models.weights import Checkpoint
from hcr.pack.store import PackReader, open_reader
from hcr.text import counted
from hcr.training.config import DRAWN_SIZE, Execution, ResolvedConfig, TrainConfig, chosen_in, resolved, resumed
from hcr.training.distributed import Processes
from hcr.training.observer import Observer
from hcr.training.splits import PackSplit, Split, SyntheticSplit
from hcr.training.state import TrainState, checkpoint_path, newest_valid
from hcr.training.step import Teacher

# Drawn pictures that validate, or a quarter of an epoch's where those are fewer.
VALIDATION_PICTURES = 4096
# glibc's mallopt, as (option, value): M_TRIM_THRESHOLD, give no freed memory back; M_MMAP_MAX, take none by mmap.
KEPT_MEMORY = ((-1, -1), (-4, 0))


def choose_run(config: TrainConfig, data: Path | None, run: str | None, *, resume: bool) -> tuple[Path | None, Path]:
    """Return the pack (None where all is drawn) and the folder of a run.

    data: the pack; None for the one that the run has been trained on, or else the only one in data/packed. run: one
    plain name; None for <pack>-<arch>, or endless-<size>-<arch> where pictures are drawn.
    Raises: UsageError for a name that is a path or that of released weights, and for several packs; DataError where
    there is no pack.
    """
    named = run_folder(run) if run is not None else None
    if named and run in RELEASED and not checkpoints(named):
        raise UsageError(f"--run {run}: is the name of released weights; choose another name")
    arch = config.arch.replace(":", "-")
    if config.draw or (named and resume and is_drawn(named)):
        # Not "drawn-": a pack of the drawn corpus has that name, and so have the runs that learn from it.
        folder = named or ARTIFACTS / f"endless-{config.size or DRAWN_SIZE}-{arch}"
        return data or (pack_of(folder) if resume else None), folder
    pack = data or (named and pack_of(named)) or find_pack(None)
    return pack, named or ARTIFACTS / f"{pack.name}-{arch}"


@dataclass(frozen=True)
class RunSetup:
    """All that a run is made of, fitting together.

    charset: what is learnt. pack: the folder, None where all is drawn. splits: "train", and "val" where there is one.
    init: the weights that a new run begins with, None for random ones. teacher: whose answers it learns, too.
    """

    config: ResolvedConfig
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
        """Return a network of the run's kind, in eval mode, on its device."""
        model = Recognizer(self.config.arch, self.charset, self.config.size).to(self.execution.device)
        return model.to(memory_format=torch.channels_last).eval()

    def state(self, checkpoint: Checkpoint | None, observer: Observer) -> TrainState:
        """Return the state in a checkpoint, or that of step 0, whose weights follow from the seed or `init`.

        Raises: DataError or UsageError for weights of another network, or a checkpoint of another pack or teacher.
        """
        torch.manual_seed(self.config.seed)
        # On the CPU, so that first weights do not depend on the device.
        model = Recognizer(self.config.arch, self.charset, self.config.size)
        for layer in model.modules():
            if isinstance(layer, nn.Dropout | nn.Dropout2d):
                layer.p *= self.config.dropout
        if self.init and checkpoint is None:
            taken = transfer(model, self.init)
            observer.note(
                f"weights of {self.init}: {counted(taken.shared, 'character')} keep their rows, {taken.new:,} are new, "
                f"{taken.dropped:,} are not {'drawn' if self.config.draw else 'in the pack'}"
            )
        state = TrainState.of(model.to(self.execution.device), self.config)
        if checkpoint is not None:
            self._require_same_data(checkpoint)
            state.restore(checkpoint, checkpoint_path(self.run, checkpoint["step"]), self.processes)
        return state

    def _require_same_data(self, checkpoint: Checkpoint) -> None:
        """Refuse a checkpoint that learnt from something else. Raises: DataError naming both."""
        source = checkpoint_path(self.run, checkpoint["step"])
        self.charset.require_same(Charset(checkpoint["characters"]), str(self.pack), str(source))
        if self.config.draw and checkpoint["pack"]["train"] != self.digests["train"]:
            raise DataError(
                f"{self.run}: drawn by {checkpoint['pack']['train']}, but this program draws by "
                f"{self.digests['train']}; resume with the release named in its run.json, or start another --run"
            )
        if checkpoint["pack"] != self.digests:
            raise DataError(
                f"{self.pack or 'no pack'}: pack {self.digests}, but the run was started on {checkpoint['pack']}; "
                "name that one with --data"
            )
        if self.teacher and checkpoint.get("teacher") != self.teacher.digest:
            raise DataError(
                f"--teacher {self.teacher.path}: weights {self.teacher.digest}, but the run was started with "
                f"{checkpoint.get('teacher')}; put those back, or start another --run"
            )


def set_up_run(
    config: TrainConfig,
    pack: Path | None,
    run: Path,
    execution: Execution,
    processes: Processes,
    observer: Observer,
    *,
    chosen: frozenset[str] | None = None,
    resume: bool = False,
    init: Path | None = None,
) -> tuple[RunSetup, Checkpoint | None]:
    """Return the setup of a run, and the checkpoint that it resumes from (None for a new run). Writes nothing.

    chosen: the settings of `config` that somebody set; None for those that differ from their defaults. The others are
    the run's own when it is resumed, else the usual ones.
    Raises: UsageError or DataError for what does not fit, and for a run that has checkpoints without `resume`.
    """
    choose_kernels(execution)
    checkpoint = _start_of(run, execution, observer, resume=resume)
    started = checkpoint["config"] if checkpoint else None
    chosen = chosen_in(config) if chosen is None else chosen
    config = _with_teacher(config, started)
    if started is not None:
        settings = resumed(config, chosen, started)
        readers = _readers(pack, drawn=settings.draw > 0)
    else:
        readers = _readers(pack, drawn=config.draw > 0)
        size, samples = DRAWN_SIZE, config.draw
        if not config.draw:
            size, samples = readers["train"].size, len(readers["train"])
        settings = resolved(config, execution, size, samples)
        if config.batch_size is None and settings.batch_size < execution.usual()["batch_size"]:
            observer.note(
                f"{counted(settings.batch_size, 'picture')} a step, as there are only "
                f"{counted(samples, 'training sample')}"
            )
    _require_fitting_pack(settings, readers)
    if settings.draw:
        # A file of characters may have changed since the run was started.
        charset = Charset(checkpoint["characters"]) if checkpoint else Charset.named(settings.charset)
    else:
        charset = readers["train"].charset
    splits: dict[str, Split] = {name: PackSplit(reader, charset) for name, reader in readers.items()}
    if settings.draw:
        splits = _drawn(settings, charset) | splits
    _require_fitting_steps(settings, splits, pack, execution, processes)
    teacher = None
    if settings.teacher:
        teacher = Teacher(find_weights(settings.teacher), charset, settings.size, execution.device)
    return RunSetup(settings, charset, pack, splits, run, execution, processes, init, teacher), checkpoint


def choose_kernels(execution: Execution) -> None:
    """Let CUDA take the fastest kernels, or those that give the same bits each time; let a CPU keep its memory."""
    if execution.device == "cuda":
        torch.backends.cudnn.benchmark = not execution.deterministic
        torch.set_float32_matmul_precision("high")
        torch.use_deterministic_algorithms(execution.deterministic)
    else:
        keep_memory()


@contextmanager
def process_settings_kept(device: str) -> Iterator[None]:
    """Put what training changes in this process back at the end: torch's kernels, precision and random numbers.

    What `keep_memory` sets stays: glibc does not tell what was set before.
    """
    kernels, products = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        torch.backends.cudnn.benchmark = kernels
        torch.set_float32_matmul_precision(products)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def keep_memory() -> None:
    """Let this process keep the memory that it frees, for the next step to use again.

    A step's maps are tens of megabytes each. glibc returns such memory to the system and asks for it anew, and the
    system clears each page: up to a third of a step on a CPU went into that (docs/lab-notes.md). Without glibc nothing
    changes.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option, value in KEPT_MEMORY:
            libc.mallopt(option, value)


def _start_of(run: Path, execution: Execution, observer: Observer, *, resume: bool) -> Checkpoint | None:
    """Return the newest valid checkpoint of `run`, None without one.

    Raises: UsageError for a run that has checkpoints where nobody asked to resume it.
    """
    if checkpoints(run) and not resume:
        raise UsageError(f"{run}: has checkpoints; resume it with --resume, or name another --run")
    checkpoint, skipped = newest_valid(run, execution.device)
    for message in skipped:
        observer.note(f"skipped a checkpoint: {message}")
    return checkpoint


def _with_teacher(config: TrainConfig, started: dict[str, object] | None) -> TrainConfig:
    """Return the settings with the teacher's file in the place of a run's name; released weights keep their names.

    Raises: DataError for a teacher that does not exist.
    """
    known = started.get("teacher") if started else None
    if config.teacher in ("", known, *RELEASED):
        return config
    return replace(config, teacher=str(find_weights(config.teacher)))


def _readers(pack: Path | None, *, drawn: bool) -> dict[str, PackReader]:
    """Open the splits of a pack that a run needs: val is enough where training pictures are drawn."""
    if pack is None:
        if drawn:
            return {}
        raise UsageError("nothing to train on: name a pack with --data, or give --draw")
    if drawn and "val" not in splits_of(pack):
        raise UsageError(f"{pack}: has no val split to validate on; leave --data out to validate on drawn handwriting")
    names = ["val"] if drawn else ["train", *splits_of(pack)]
    return {name: open_reader(pack / f"{name}.lmdb") for name in names if name != "test"}


def _drawn(config: ResolvedConfig, charset: Charset) -> dict[str, Split]:
    """Return what is drawn: training pictures by the run's seed, validation pictures by the same for all runs.

    Both have the same share of pages.
    """
    count, fonts = max(1, min(VALIDATION_PICTURES, config.draw // 4)), tuple(map(Path, config.font))
    shared: dict[str, Any] = {"size": config.size, "fonts": fonts, "pages": config.pages}
    taught = bool(config.pages and config.teacher)
    return {
        "train": SyntheticSplit(charset, config.draw, TRAINING_WRITERS, config.seed, taught=taught, **shared),
        "val": SyntheticSplit(charset, count, VALIDATION_WRITERS, 0, **shared),
    }


def _require_fitting_pack(config: ResolvedConfig, readers: dict[str, PackReader]) -> None:
    """Refuse settings that contradict the pack. Raises: UsageError, DataError."""
    if config.charset and not config.draw:
        raise UsageError(f"--charset {config.charset}: names what --draw draws; a pack has its own characters")
    if config.font and not config.draw:
        raise UsageError(f"--font {config.font[0]}: names what --draw draws with; a pack has its own pictures")
    if config.pages and not config.draw:
        raise UsageError(f"--pages {config.pages}: says how --draw draws; a pack has its own pictures")
    for reader in readers.values():
        if config.size != reader.size:
            raise DataError(
                f"{reader.path}: pictures of {reader.size} px, expected {config.size}: pack with --size {config.size}"
            )


def _require_fitting_steps(
    config: ResolvedConfig, splits: dict[str, Split], pack: Path | None, execution: Execution, processes: Processes
) -> None:
    """Refuse steps that the splits, the processes or the device cannot make. Raises: UsageError."""
    samples = len(splits["train"])
    if samples < config.batch_size:
        place = f"--draw {config.draw} draws" if config.draw else f"{pack} has"
        most = samples // processes.world * processes.world
        advice = (
            f"use --batch-size {most} or fewer" if most >= 2 else f"there must be {max(2, processes.world)} or more"
        )
        raise UsageError(
            f"--batch-size {config.batch_size}: {place} only {counted(samples, 'training sample')}; {advice}"
        )
    if config.batch_size % processes.world:
        raise UsageError(
            f"--batch-size {config.batch_size}: no multiple of the "
            f"{counted(processes.world, 'process', 'processes')} that share it"
        )
    if config.schedule == "plateau" and "val" not in splits:
        raise UsageError(f"--schedule plateau: {pack} has no val split to go by; use --schedule cosine")
    if config.sync_bn and execution.device != "cuda":
        raise UsageError("--sync-bn: torch synchronises batch norm on CUDA only; use --device cuda")


def cache_note(setup: RunSetup) -> str:
    """Say what --cache is about to read."""
    size = sum(resident_bytes(split.reader) for split in setup.packed.values())
    cache, device = setup.execution.cache, setup.execution.device
    where = "in memory" if cache == "ram" or device == "cpu" else f"on {device}"
    return f"--cache {cache}: reading {' and '.join(setup.packed)}, {size:,} bytes, to hold {where}"
