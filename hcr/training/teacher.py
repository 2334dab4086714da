"""Distillation: a network that is trained already, and the loss by which another learns its answers.

Its scores say what a label cannot: which other characters a picture looks like, and how much.
Source: Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network".
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hcr.charset import Charset
from hcr.errors import UsageError
from hcr.models import load_recognizer
from hcr.models.released import weights_digest

# What both networks' logits are divided by, so that the unlikely characters count, too; gradients shrink by its square.
TEMPERATURE = 2.0
# Share of the teacher's answers in the loss; the labels have the rest.
SHARE = 0.9


class Teacher(nn.Module):
    """The averaged weights of a checkpoint, or released ones, on `device`; no part of what a run moves or saves.

    charset, size: the run's. It may know more characters, and in another order.
    Raises: UsageError for pictures of another size, and where it lacks characters; what `load_recognizer` raises.
    """

    labels: Tensor

    def __init__(self, path: Path, charset: Charset, size: int, device: str) -> None:
        super().__init__()
        model = load_recognizer(path, device)
        if model.size != size:
            raise UsageError(f"--teacher {path}: reads pictures of {model.size} px, expected {size}; choose another")
        if lacking := [char for char in charset.characters if char not in model.charset]:
            raise UsageError(
                f"--teacher {path}: lacks {len(lacking):,} of the {len(charset):,} characters, first "
                f"{''.join(lacking[:8])!r}; choose one that knows them all"
            )
        self.path, self.digest = path, weights_digest(model.state_dict())
        self.model = model.to(memory_format=torch.channels_last)
        labels = [model.charset.label(char) for char in charset.characters]
        self.register_buffer("labels", torch.tensor(labels, device=device))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Give logits float32[B, C], in the order of the run's labels, for images uint8[B, 1, S, S]; no gradients."""
        with torch.no_grad():
            logits: Tensor = self.model(images)
            return logits.index_select(1, self.labels)


def distilled(loss: Tensor, logits: Tensor, answers: Tensor) -> Tensor:
    """Mix the `loss` by labels with how far `logits` are from a teacher's `answers`; all are sums over the pictures.

    logits, answers: float32[B, C], whatever the precision of the networks.
    """
    own, taught = (F.log_softmax(each / TEMPERATURE, 1) for each in (logits, answers))
    far = F.kl_div(own, taught, reduction="sum", log_target=True)
    return (1 - SHARE) * loss + SHARE * TEMPERATURE**2 * far
