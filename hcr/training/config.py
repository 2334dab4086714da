"""The settings that decide what a run learns. They stand in its checkpoints, and a resumed run may not change them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from hcr.errors import UsageError
from hcr.models import require_arch


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run; how it is executed (device, workers, checkpoint times) stands elsewhere and may change.

    arch: a backbone's name. size: pixels a side, the pack's. epochs: passes over the training split.
    batch_size: pictures a step. lr: the highest learning rate. seed: of order, augmentation and first weights.
    weight_decay: AdamW's, not on norms and biases. label_smoothing: share of the target spread over all classes.
    warmup: share of the steps in which lr rises. ema_decay: of the averaged weights, which are validated and released.
    augmentation: distort training pictures.

    Raises: UsageError for a value out of its range.
    """

    arch: str = "efficientnet_v2_s"
    size: int = 64
    epochs: int = 20
    batch_size: int = 256
    lr: float = 2e-3
    seed: int = 0
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    warmup: float = 0.1
    ema_decay: float = 0.999
    augmentation: bool = True

    def __post_init__(self) -> None:
        require_arch(self.arch)
        for name, low, high in (
            ("size", 32, 256),
            ("epochs", 1, 10_000),
            ("batch_size", 2, 65_536),
            ("lr", 1e-8, 10.0),
            ("seed", 0, 1 << 31),
            ("weight_decay", 0.0, 10.0),
            ("label_smoothing", 0.0, 0.9),
            ("warmup", 0.0, 0.9),
            ("ema_decay", 0.0, 0.99999),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"{name.replace('_', '-')} {value}: expected {low} to {high}")


@dataclass(frozen=True)
class Execution:
    """How a run is executed: nothing here changes what it learns (beyond a device's rounding).

    workers: processes that read batches. cache: hold the pack's pictures in memory ("ram") or on the device ("device").
    checkpoint_every: steps between checkpoints; None: ten minutes.
    """

    device: str = "cpu"
    workers: int = 2
    cache: str = "none"
    checkpoint_every: int | None = None

    def has_bfloat16(self) -> bool:
        """Tell whether the device multiplies bfloat16 in hardware, which makes a training step faster."""
        if self.device == "cuda":
            return True
        found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # absent from older releases
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def config_for(given: dict[str, Any], started: dict[str, Any] | None) -> TrainConfig:
    """Complete the settings somebody gave: by the defaults, or by those a run was `started` with.

    Raises: UsageError naming a setting that differs from the one the run was started with.
    """
    if started is None:
        return TrainConfig(**given)
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    for name, value in given.items():
        if started.get(name) != value:
            raise UsageError(
                f"--{name.replace('_', '-')} {value}: the run was started with {started.get(name)}; "
                "leave the flag out to go on, or start another --run"
            )
    return TrainConfig(**{name: value for name, value in started.items() if name in names})
