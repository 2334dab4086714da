"""The settings that decide what a run learns. They stand in its checkpoints, and a resumed run may not change them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from hcr.errors import UsageError
from hcr.models import require_arch

# Pictures a step where nobody says. On a CPU a step of 256 would take half a minute, and a stop waits for its end.
CUDA_BATCH, CPU_BATCH = 256, 64
CHOICES = {"schedule": ("cosine", "plateau"), "precision": ("fp32", "bf16", "fp16")}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run; how it is executed (device, workers, checkpoint times) stands elsewhere and may change.

    draw: pictures of an epoch, drawn as they are needed; 0 for a pack's training split. charset: the characters that
    are drawn, a name or file as Charset.named takes it; "" for a pack's. font: font files in whose forms some of the
    drawn writers write. pages: the share of the drawn pictures that are cut out of drawn pages.
    teacher: a checkpoint or released weights whose answers are learnt, too; "" for labels alone.
    arch: a backbone's name. size: pixels a side, the pack's. epochs: passes over the training split.
    batch_size: pictures a step, over all processes. accumulate: parts in which each process computes its pictures of a
    step, one after the other, where memory is short; batch norm sees a part at a time.
    lr: the highest learning rate. schedule: "cosine", or "plateau", which halves the rate when the validation loss no
    longer falls. warmup: share of the steps in which lr rises (cosine).
    weight_decay: AdamW's, not on norms and biases; 0 makes it Adam. clip: the greatest norm of a step's gradients; 0:
    no limit. label_smoothing: share of the target spread over all classes. dropout: how much of the network's own is
    used, 1 all of it; where no picture comes twice it only hinders.
    ema_decay: of the averaged weights, which are validated and released; 0 for the last weights as they are.
    augmentation: distort training pictures, drawn ones also as poor pens and scanners do. precision: in which
    convolutions and products are computed.
    sync_bn: batch norm over all processes' pictures (CUDA). seed: of order, augmentation, dropout, first weights and
    what is drawn.

    Raises: UsageError for a value out of its range.
    """

    draw: int = 0
    charset: str = ""
    font: tuple[str, ...] = ()
    pages: float = 0.0
    teacher: str = ""
    arch: str = "efficientnet_v2_s"
    size: int = 64
    epochs: int = 20
    batch_size: int = 256
    accumulate: int = 1
    lr: float = 2e-3
    schedule: str = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.05
    clip: float = 1.0
    label_smoothing: float = 0.1
    dropout: float = 1.0
    ema_decay: float = 0.999
    augmentation: bool = True
    precision: str = "fp32"
    sync_bn: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        require_arch(self.arch)
        for name, low, high in (
            ("draw", 0, 1 << 31),
            ("pages", 0.0, 1.0),
            ("size", 32, 256),
            ("epochs", 1, 10_000),
            ("batch_size", 2, 65_536),
            ("accumulate", 1, 1024),
            ("lr", 1e-8, 10.0),
            ("warmup", 0.0, 0.9),
            ("weight_decay", 0.0, 10.0),
            ("clip", 0.0, 1e6),
            ("label_smoothing", 0.0, 0.9),
            ("dropout", 0.0, 1.0),
            ("ema_decay", 0.0, 0.99999),
            ("seed", 0, 1 << 31),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"{name.replace('_', '-')} {value}: expected {low} to {high}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(choices)}")


@dataclass(frozen=True)
class Execution:
    """How a run is executed: nothing here changes what it learns (beyond a device's rounding).

    workers: processes that read batches. cache: hold the pack's pictures in memory ("ram") or on the device ("device").
    checkpoint_every: steps between checkpoints (int), or seconds (float).
    compile: let torch.compile make the network's kernels. deterministic: let CUDA take only kernels that give the same
    bits each time. tensorboard: write the metrics as TensorBoard events, too.
    """

    device: str = "cpu"
    workers: int = 2
    cache: str = "none"
    checkpoint_every: int | float = 600.0
    compile: bool = False
    deterministic: bool = False
    tensorboard: bool = False

    @property
    def multiplies_bf16(self) -> bool:
        """Whether the device multiplies bfloat16 in hardware: elsewhere it makes a step slower, not faster."""
        if self.device == "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # absent from older releases
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))

    def usual(self) -> dict[str, Any]:
        """Return the settings that depend on the device where nobody chose them."""
        batch_size = CUDA_BATCH if self.device == "cuda" else CPU_BATCH
        return {"batch_size": batch_size, "precision": "bf16" if self.multiplies_bf16 else "fp32"}


def config_for(given: dict[str, Any], started: dict[str, Any] | None) -> TrainConfig:
    """Complete the settings somebody gave: by the defaults, or by those a run was `started` with.

    Raises: UsageError naming a setting that differs from the one the run was started with.
    """
    if started is None:
        return TrainConfig(**given)
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    config = TrainConfig(**{name: value for name, value in started.items() if name in names})
    for name, value in given.items():
        known = getattr(config, name)
        if known != value:
            raise UsageError(
                f"--{name.replace('_', '-')} {_shown(value)}: the run was started with {_shown(known)}; "
                "leave the flag out to go on, or start another --run"
            )
    return config


def _shown(value: Any) -> str:
    return (", ".join(value) if isinstance(value, tuple) else str(value)) or "none"
