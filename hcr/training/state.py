"""What a run has learnt so far: exactly what a restart needs, and how it becomes plain types and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hcr.charset import Charset
from hcr.glyph import PREPROCESSING
from hcr.models import Recognizer
from hcr.models.weights import load_weights
from hcr.training.config import TrainConfig
from hcr.training.schedule import ema_rate


@dataclass
class Tally:
    """Sums over the training steps of the current epoch, kept on the device so that no step waits for them."""

    loss: float | Tensor = 0.0
    correct: int | Tensor = 0
    samples: int = 0

    def plain(self) -> dict[str, float]:
        return {"loss": float(self.loss), "correct": int(self.correct), "samples": self.samples}


@dataclass
class TrainState:
    """Model, average, optimizer and position: `step` counts steps, `epochs` the validated and recorded epochs."""

    model: Recognizer
    ema: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    step: int = 0
    epochs: int = 0
    tally: Tally = field(default_factory=Tally)
    best: dict[str, float] | None = None
    metrics_bytes: int = 0

    @classmethod
    def fresh(cls, config: TrainConfig, charset: Charset, device: str) -> TrainState:
        """Make the state of step 0; all first weights follow from the seed."""
        torch.manual_seed(config.seed)
        model = Recognizer(config.arch, charset, config.size).to(device).to(memory_format=torch.channels_last)
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
        return cls(model, {key: value.clone() for key, value in model.state_dict().items()}, optimizer)

    def average(self, decay: float) -> None:
        """Move the averaged weights towards the model's, after a step."""
        rate = ema_rate(self.step, decay)
        current = self.model.state_dict()
        floats = [key for key, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.ema[key] for key in floats], [current[key] for key in floats], rate)
        for key in current.keys() - set(floats):
            self.ema[key].copy_(current[key])

    def is_finite(self) -> bool:
        """Tell whether every weight is a finite number."""
        return all(bool(parameter.isfinite().all()) for parameter in self.model.parameters())

    def plain(self, config: TrainConfig, pack: dict[str, str]) -> dict[str, Any]:
        """Give the content of a checkpoint (docs/formats.md), but for its format and step; `pack`: a digest a split."""
        cuda = torch.cuda.get_rng_state_all() if next(self.model.parameters()).is_cuda else []
        return {
            "arch": self.model.arch,
            "size": self.model.size,
            "characters": self.model.charset.characters,
            "charset_digest": self.model.charset.digest,
            "preprocessing": PREPROCESSING,
            "pack": pack,
            "config": asdict(config),
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            # Both are pure functions of the step, and bf16 needs no loss scaling: nothing of them has to be kept.
            "schedule": {"step": self.step},
            "scaler": None,
            "random": {"cpu": torch.get_rng_state(), "cuda": cuda},
            "epochs": self.epochs,
            "tally": self.tally.plain(),
            "best": self.best,
            "metrics_bytes": self.metrics_bytes,
        }

    def restore(self, content: dict[str, Any], path: Path) -> None:
        """Go back to a checkpoint's state. Raises: DataError naming `path` where its weights are another model's."""
        load_weights(self.model, content["model"], path)
        self.ema = {key: value.clone() for key, value in content["ema"].items()}
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.epochs = content["step"], content["epochs"]
        self.tally = Tally(**content["tally"])
        self.best = content["best"]
        self.metrics_bytes = content["metrics_bytes"]
        torch.set_rng_state(content["random"]["cpu"].cpu())
        if content["random"]["cuda"] and next(self.model.parameters()).is_cuda:
            torch.cuda.set_rng_state_all([state.cpu() for state in content["random"]["cuda"]])
