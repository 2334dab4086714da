"""The settings of a run: `TrainConfig` decides what it learns, `Execution` how it is carried out.

What a run learns by stands in its checkpoints, and a resumed run may not change it. Nothing here imports torch, so that
`--help` and `import hcr` stay quick.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from dataclasses import dataclass
from typing import Any

from hcr.charset import KNOWN
from hcr.config import check_settings, described, flag_of, setting
from hcr.errors import UsageError
from hcr.feed import CACHES
from hcr.layout import NAMED_WEIGHTS
from hcr.models import BACKBONES, require_arch
from hcr.models.backbones import TIMM
from hcr.models.device import DEVICES, choose_device

# Pictures a step where nobody chooses. On a CPU a step of 256 would take half a minute, and a stop waits for its end.
CUDA_BATCH, CPU_BATCH = 256, 64
# Of drawn handwriting, where nobody chooses.
DRAWN_EPOCH, DRAWN_CHARSET, DRAWN_SIZE, DRAWN_PAGES = 100_000, "level1", 64, 0.5
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@described
@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What a run learns, and by which rules. Where a setting is None the device or the pack decides.

    Raises: UsageError for an unknown network, and for a value of another type or out of its range.

    Example:
        config = hcr.TrainConfig(arch="compact", epochs=3)
        print(config.lr, config.size)  # 0.002 None: the default, and the pack's
    """

    draw: int = setting(
        0,
        f"Train on handwriting drawn as it is needed, PICTURES ({DRAWN_EPOCH}) an epoch. Drawn handwriting also "
        "validates, or the val split of --data.",
        0, 1 << 31, usual="train on a pack", metavar="[PICTURES]", alone=DRAWN_EPOCH,
    )  # fmt: skip
    charset: str = setting(
        "", f"Characters to draw: {', '.join(KNOWN)}, or a FILE of characters.",
        usual=f"{DRAWN_CHARSET}, a pack has its own",
    )  # fmt: skip
    font: tuple[str, ...] = setting(
        (),
        "TTF, OTF or WOFF2: one drawn writer in four writes its forms, or those of the other fonts given. The other "
        "writers take their proportions from them, more or less. Repeatable.",
        usual="none", metavar="FILE",
    )  # fmt: skip
    pages: float | None = setting(
        None,
        "Share of the drawn pictures that are cut out of drawn pages, with neighbours, lines, shade and few pixels.",
        0.0, 1.0, usual=f"{DRAWN_PAGES} with --draw",
    )  # fmt: skip
    teacher: str = setting(
        "",
        f"Also learn the answers of this trained network (distillation), which knows all characters or more: "
        f"{NAMED_WEIGHTS}.",
        usual="none", metavar="RUN|FILE|NAME",
    )  # fmt: skip
    arch: str = setting(
        "efficientnet_v2_s",
        f"Network: {', '.join(BACKBONES)}, {TIMM}NAME. compact is made for a CPU.",
    )
    size: int | None = setting(None, "Pixels a side.", 32, 256, usual=f"the pack's, drawn: {DRAWN_SIZE}")
    epochs: int = setting(20, "Passes over the training split.", 1, 10_000)
    batch_size: int | None = setting(
        None, "Pictures a step, over all processes.", 2, 65_536,
        usual=f"{CUDA_BATCH} on CUDA, {CPU_BATCH} on a CPU, fewer for a small pack",
    )  # fmt: skip
    accumulate: int = setting(
        1, "Parts in which each process computes a step, where memory is short. Batch norm sees a part at a time.",
        1, 1024,
    )  # fmt: skip
    lr: float = setting(2e-3, "Highest learning rate.", 1e-8, 10.0)
    schedule: str = setting(
        "cosine", "plateau: halve the learning rate when the validation loss no longer falls.",
        choices=("cosine", "plateau"),
    )  # fmt: skip
    warmup: float = setting(0.1, "Share of the steps in which the learning rate rises (cosine).", 0.0, 0.9)
    weight_decay: float = setting(0.05, "AdamW's, not on norms and biases. 0 makes it Adam.", 0.0, 10.0)
    clip: float = setting(1.0, "Maximum gradient norm of a step. 0: no limit.", 0.0, 1e6)
    label_smoothing: float = setting(0.1, "Share of the target spread over all classes.", 0.0, 0.9)
    dropout: float = setting(1.0, "How much of the network's own dropout is used. 0: none.", 0.0, 1.0)
    ema_decay: float = setting(
        0.999, "Decay of the averaged weights, which are validated and released. 0: the last weights.", 0.0, 0.99999
    )
    augmentation: bool = setting(True, "Distort training pictures; degrade drawn ones as poor pens and scanners do.")
    precision: str | None = setting(
        None, "Number format of convolutions and matrix products.",
        choices=("fp32", "bf16", "fp16"), usual="bf16 where the hardware has it, else fp32",
    )  # fmt: skip
    sync_bn: bool = setting(False, "Compute batch norm over the pictures of all processes (CUDA).")
    seed: int = setting(0, "Seed of first weights, order, augmentation, dropout, and what is drawn.", 0, 1 << 31)

    def __post_init__(self) -> None:
        check_settings(self)
        require_arch(self.arch)


def _decided(name: str, **default: Any) -> Any:
    """Return the field `name` of TrainConfig without its default, or with another one."""
    return dataclasses.field(metadata=TrainConfig.__dataclass_fields__[name].metadata, **default)


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(TrainConfig):
    """The settings of a run that has begun: those that device and pack decide are decided."""

    # Older runs do not name it, and drew no pages.
    pages: float = _decided("pages", default=0.0)
    size: int = _decided("size")
    batch_size: int = _decided("batch_size")
    precision: str = _decided("precision")


@described
@dataclass(frozen=True)
class Execution:
    """How a run is carried out: may change from start to start, and changes nothing that it learns.

    Rounding follows the device all the same. `device` is "cpu" or "cuda" once this is made, never "auto".
    Raises: UsageError for a value of another type or out of its range, and for "cuda" without a GPU.

    Example:
        execution = hcr.Execution(workers=2, checkpoint_every="10m")  # or 100: steps; 30.0: seconds
    """

    device: str = setting("auto", "Where to compute; auto: on the GPU if there is one.", choices=DEVICES)
    workers: int | None = setting(None, "Processes that read batches.", 0, usual="4 on CUDA, 1 on a CPU")
    cache: str = setting("none", "Hold all pictures in memory (ram) or on the device.", choices=CACHES)
    checkpoint_every: int | float | str = setting(
        "10m", "Time between checkpoints: 500 (steps), 30s, 10m, 2h.", metavar="STEPS|TIME"
    )
    compile: bool = setting(False, "Let torch.compile make the kernels.")
    deterministic: bool = setting(False, "Take only kernels that give the same bits each time, on CUDA, too; slower.")
    tensorboard: bool = setting(False, "Write the metrics for TensorBoard, too.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", choose_device(self.device))
        check_settings(self)
        _pause(self.checkpoint_every)

    @property
    def pause(self) -> int | float:
        """What lies between two checkpoints: an int of steps, or a float of seconds."""
        return _pause(self.checkpoint_every)

    @property
    def readers(self) -> int:
        """How many processes read batches: `workers`, or what is usual on the device."""
        if self.workers is not None:
            return self.workers
        return min(4, os.cpu_count() or 1) if self.device == "cuda" else 1

    @property
    def multiplies_bf16(self) -> bool:
        """Whether the device multiplies bfloat16 in hardware: elsewhere it makes a step slower, not faster."""
        import torch

        if self.device == "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # absent from older releases
        # What ATEN_CPU_CAPABILITY keeps torch to counts, not what the processor has.
        used = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        return used and bool(found.get("avx512_bf16") or found.get("amx_bf16"))

    def usual(self) -> dict[str, Any]:
        """Return the settings that the device decides where nobody chose them."""
        batch_size = CUDA_BATCH if self.device == "cuda" else CPU_BATCH
        return {"batch_size": batch_size, "precision": "bf16" if self.multiplies_bf16 else "fp32"}


def _pause(given: int | float | str) -> int | float:
    """Return steps (500, "500" or "500steps") as an int, or a time (30.0, "30s", "10m", "2h") as seconds, a float.

    Raises: UsageError for anything else, and for nothing and less.
    """
    pause: int | float = 0
    if isinstance(given, str):
        found = re.fullmatch(r"(\d+)(?:steps?)?|(\d+(?:\.\d+)?)([smh])", given)
        if found:
            pause = int(found[1]) if found[1] else float(found[2]) * SECONDS[found[3]]
    else:
        pause = given
    if not 0 < pause < math.inf:
        raise UsageError(f"--checkpoint-every {given!r}: expected steps as 500, or a time as 30s, 10m or 2h")
    return pause


def chosen_in(config: TrainConfig) -> frozenset[str]:
    """Name the settings that somebody seems to have chosen: those that differ from their defaults."""
    return frozenset(field.name for field in dataclasses.fields(config) if getattr(config, field.name) != field.default)


def resolved(config: TrainConfig, execution: Execution, size: int, samples: int) -> ResolvedConfig:
    """Complete the settings of a new run. size, samples: of its pack's train split, or of an epoch that is drawn.

    A batch size that nobody chose is at most the largest power of two that the samples fill, and 2 or more.
    """
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    usual = execution.usual() | {"size": size, "pages": DRAWN_PAGES if config.draw else 0.0}
    usual |= {"charset": DRAWN_CHARSET} if config.draw else {}
    usual["batch_size"] = min(usual["batch_size"], max(2, 1 << samples.bit_length() >> 1))
    return ResolvedConfig(**values | {name: value for name, value in usual.items() if values[name] in (None, "")})


def resumed(config: TrainConfig, chosen: frozenset[str], started: dict[str, Any]) -> ResolvedConfig:
    """Return the settings that a run was `started` with; older runs lack some, which then have their defaults.

    Raises: UsageError for a setting of `config` that somebody has `chosen` and that differs.
    """
    names = {field.name for field in dataclasses.fields(ResolvedConfig)}
    found = ResolvedConfig(**{name: value for name, value in started.items() if name in names})
    for name in [field.name for field in dataclasses.fields(config) if field.name in chosen]:
        value, known = getattr(config, name), getattr(found, name)
        if value != known:
            raise UsageError(
                f"{flag_of(name)} {_shown(value)}: the run was started with {_shown(known)}; "
                "leave the flag out to resume it, or start another --run"
            )
    return found


def _shown(value: Any) -> str:
    return (", ".join(value) if isinstance(value, tuple) else str(value)) or "none"
