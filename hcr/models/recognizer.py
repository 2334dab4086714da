"""The one way from grey bytes to logits.

Scaling lives inside the network, so that training, evaluation, prediction and every export see the same numbers: a port
of the tutorial fell from > 80 % to 12 % because a phone scaled otherwise. It costs one pass over the picture.
"""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from hcr.charset import Charset
from hcr.models.backbones import build_backbone

# Ink fainter than this share of black is not stretched to full strength: an empty picture must not become noise.
FAINTEST_INK = 0.1


class SavedModel(TypedDict):
    """The keys that every file of weights has, whether checkpoint or released (docs/formats.md).

    arch: a network's name. size: pixels a side. characters: in label order. preprocessing: how pictures were made.
    ema: the averaged weights, which are those to use. pack: a digest for each split that was learnt from or validated.
    """

    arch: str
    size: int
    characters: str
    preprocessing: dict[str, Any]
    ema: dict[str, Tensor]
    pack: dict[str, str]


class Recognizer(nn.Module):
    """A network with its characters: uint8 pictures in, logits out.

    Raises: UsageError for an unknown `arch`, and for one that does not take pictures of `size` pixels a side.
    """

    def __init__(self, arch: str, charset: Charset, size: int) -> None:
        super().__init__()
        self.arch, self.charset, self.size = arch, charset, size
        self.backbone = build_backbone(arch, len(charset), size)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits float32[B, C], label order, for images uint8[B, 1, S, S], 255 = paper.

        Each picture's ink is scaled to its own darkest pixel, so that faint pens look like dark ones.
        """
        ink = (255 - images).to(torch.get_default_dtype()) / 255
        darkest = ink.amax(dim=(1, 2, 3), keepdim=True).clamp(min=FAINTEST_INK)
        logits: Tensor = self.backbone(ink / darkest)
        return logits.to(ink.dtype)
