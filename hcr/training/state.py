"""What a run has learnt so far: exactly what a restart needs, and how it becomes plain types and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hcr.glyph import PREPROCESSING
from hcr.models import Recognizer
from hcr.models.weights import load_weights
from hcr.training.config import TrainConfig
from hcr.training.ranks import Ranks
from hcr.training.schedule import Plateau, ema_rate


@dataclass
class Tally:
    """Sums over the training steps of the current epoch, kept on the device so that no step waits for them."""

    loss: float | Tensor = 0.0
    correct: float | Tensor = 0.0
    samples: float = 0.0

    @classmethod
    def of(cls, saved: dict[str, list[float]], ranks: Ranks) -> Tally:
        """Take this process's sums out of a checkpoint; of another number of processes, the first takes all."""
        rows = [row if len(row) == ranks.world else [sum(row)] + [0.0] * ranks.world for row in saved.values()]
        return cls(*(row[ranks.rank] for row in rows))


@dataclass
class Faults:
    """Steps whose loss or gradients were not finite, and what was done about them.

    skipped: steps left out, of the whole run. in_row: the last ones, if there was no good one since. halved: how often
    the run went back to a good state with half the rate.
    """

    skipped: int = 0
    in_row: int = 0
    halved: int = 0


@dataclass
class TrainState:
    """Model, average, optimizer and position: `step` counts steps, `epochs` the validated and recorded epochs."""

    model: Recognizer
    ema: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    step: int = 0
    epochs: int = 0
    tally: Tally = field(default_factory=Tally)
    plateau: Plateau = field(default_factory=Plateau)
    faults: Faults = field(default_factory=Faults)
    best: dict[str, float] | None = None
    metrics_bytes: int = 0

    @classmethod
    def of(cls, model: Recognizer, config: TrainConfig) -> TrainState:
        """Make the state of step 0 of training `model`, on the model's device."""
        model = model.to(memory_format=torch.channels_last)
        if config.sync_bn:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
                # Norms and biases: pulling them to zero would fight what they are for.
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=config.lr,
            # One pass over the weights instead of a dozen: a twentieth of a step of the compact network on a CPU.
            fused=True,
        )
        scaler = torch.amp.GradScaler(parameters[0].device.type, enabled=config.precision == "fp16")
        return cls(model, {key: value.clone() for key, value in model.state_dict().items()}, optimizer, scaler)

    def average(self, decay: float) -> None:
        """Move the averaged weights towards the model's, after a step."""
        rate = ema_rate(self.step, decay)
        current = self.model.state_dict()
        floats = [key for key, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.ema[key] for key in floats], [current[key] for key in floats], rate)
        for key in current.keys() - set(floats):
            self.ema[key].copy_(current[key])

    def plain(self, config: TrainConfig, pack: dict[str, str], teacher: str | None, ranks: Ranks) -> dict[str, Any]:
        """Give the content of a checkpoint (docs/formats.md), but for its format and step; all processes call this.

        pack: a digest a split. teacher: the digest of its weights.
        """
        return {
            "arch": self.model.arch,
            "size": self.model.size,
            "characters": self.model.charset.characters,
            "charset_digest": self.model.charset.digest,
            "preprocessing": PREPROCESSING,
            "pack": pack,
            "teacher": teacher,
            "config": asdict(config),
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"step": self.step, **asdict(self.plateau)},
            "scaler": self.scaler.state_dict(),
            # Random numbers of a step are a function of these two and the process's number.
            "random": {"seed": config.seed, "step": self.step},
            "epochs": self.epochs,
            "tally": dict(zip(vars(self.tally), ranks.all(*vars(self.tally).values()), strict=True)),
            "faults": asdict(self.faults),
            "best": self.best,
            "metrics_bytes": self.metrics_bytes,
        }

    def restore(self, content: dict[str, Any], path: Path, ranks: Ranks) -> None:
        """Go back to a checkpoint's state. Raises: DataError naming `path` where its weights are another model's."""
        load_weights(self.model, content["model"], path)
        self.ema = {key: value.clone() for key, value in content["ema"].items()}
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        self.step, self.epochs = content["step"], content["epochs"]
        self.tally = Tally.of(content["tally"], ranks)
        self.plateau = Plateau(**{name: content["schedule"][name] for name in vars(Plateau())})
        self.faults = Faults(**content["faults"])
        self.best = content["best"]
        self.metrics_bytes = content["metrics_bytes"]
