"""The one way from grey bytes to logits.

Scaling lives inside the network, so that training, evaluation, prediction and every export see the same numbers: a port
of the tutorial fell from > 80 % to 12 % because a phone scaled otherwise. It costs one pass over the picture.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hcr.charset import Charset
from hcr.errors import UsageError
from hcr.models.compact import Compact

# Ink fainter than this share of black is not stretched to full strength: an empty picture must not become noise.
FAINTEST_INK = 0.1


def _efficientnet_v2_s(classes: int) -> nn.Module:
    """torchvision's EfficientNetV2-S with a one-channel stem: grey tripled to RGB would triple the stem for nothing."""
    from torchvision.models import efficientnet_v2_s

    network = efficientnet_v2_s(num_classes=classes)
    stem = network.features[0][0]
    network.features[0][0] = nn.Conv2d(
        1, stem.out_channels, stem.kernel_size, stem.stride, stem.padding, bias=stem.bias is not None
    )
    nn.init.kaiming_normal_(network.features[0][0].weight, mode="fan_out")
    return network


BACKBONES: dict[str, Callable[[int], nn.Module]] = {"efficientnet_v2_s": _efficientnet_v2_s, "compact": Compact}


def require_arch(arch: str) -> None:
    """Refuse a backbone that does not exist. Raises: UsageError with the nearest name and all of them."""
    if arch not in BACKBONES:
        near = difflib.get_close_matches(arch, BACKBONES, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"unknown arch {arch!r}: {hint}there are {', '.join(BACKBONES)}")


class Recognizer(nn.Module):
    """A network with its characters: uint8 pictures in, logits out.

    Raises: UsageError for an unknown `arch`.
    """

    def __init__(self, arch: str, charset: Charset, size: int) -> None:
        super().__init__()
        require_arch(arch)
        self.arch, self.charset, self.size = arch, charset, size
        self.backbone = BACKBONES[arch](len(charset))

    def forward(self, images: Tensor) -> Tensor:
        """Give logits float32[B, C], label order, for images uint8[B, 1, S, S], 255 = paper.

        Each picture's ink is scaled to its own darkest pixel, so that faint pens look like dark ones.
        """
        ink = (255 - images).to(torch.get_default_dtype()) / 255
        darkest = ink.amax(dim=(1, 2, 3), keepdim=True).clamp(min=FAINTEST_INK)
        logits: Tensor = self.backbone(ink / darkest)
        return logits.to(ink.dtype)
