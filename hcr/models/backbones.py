"""The networks by name: ink float[B, 1, S, S] in 0..1 goes in, logits float[B, C] come out.

A builder is told the picture's size, so that a network bound to it needs no pooling to another map size. torch,
torchvision and timm are imported when a network is built; only the names of timm's networks need timm to be checked.
"""

from __future__ import annotations

import copy
import difflib
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from hcr.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

# builder(classes, size)
Builder = Callable[[int, int], "nn.Module"]

TIMM = "timm:"


def _compact(classes: int, size: int) -> nn.Module:
    from hcr.models.compact import Compact

    return Compact(classes)


def _compact_small(classes: int, size: int) -> nn.Module:
    """Return the compact network at half the arithmetic: what the demo trains on a CPU, where minutes count."""
    from hcr.models.compact import SMALL, Compact

    return Compact(classes, SMALL)


def _compact_wide(classes: int, size: int) -> nn.Module:
    """Return the compact network's wide form, for a GPU and as the compact one's teacher.

    A view takes four times the arithmetic, and test-time augmentation takes two views.
    """
    from hcr.models.compact import WIDE, Compact

    return Compact(classes, WIDE, tta=True)


def _efficientnet_v2_s(classes: int, size: int, stride: int = 2) -> nn.Module:
    """Return torchvision's EfficientNetV2-S with a one-channel stem: grey as RGB would triple the stem for nothing.

    stride: the stem's. 2 is the original. 1 keeps all maps twice as large, at about four times the arithmetic; of a
    picture of 32 px the original leaves a single pixel to its last 15 of 40 blocks.
    """
    from torch import nn
    from torchvision.models import efficientnet_v2_s

    network: Any = efficientnet_v2_s(num_classes=classes)
    stem = network.features[0][0]
    network.features[0][0] = nn.Conv2d(
        1, stem.out_channels, stem.kernel_size, stride, stem.padding, bias=stem.bias is not None
    )
    nn.init.kaiming_normal_(network.features[0][0].weight, mode="fan_out")
    built: nn.Module = network
    return built


def _vgg19_bn(classes: int, size: int) -> nn.Module:
    """Return VGG19 with batch norm and a one-channel stem; its head takes the map as it is, size // 32 pixels a side.

    torchvision's own head pools every map to 7×7: of a picture of 32 px it would copy one pixel 49 times, for 100
    million weights.

    Source: Simonyan, Zisserman 2015, "Very deep convolutional networks for large-scale image recognition".
    """
    from torch import nn
    from torchvision.models.vgg import cfgs, make_layers

    features = make_layers(cfgs["E"], batch_norm=True)
    features[0] = nn.Conv2d(1, features[0].out_channels, 3, padding=1)
    head: list[nn.Module] = [nn.Flatten()]
    for inputs in (512 * (size // 32) ** 2, 4096):
        head += [nn.Linear(inputs, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)]
    head.append(nn.Linear(4096, classes))
    return nn.Sequential(OrderedDict(features=features, head=nn.Sequential(*head)))


BACKBONES: dict[str, Builder] = {
    "efficientnet_v2_s": _efficientnet_v2_s,
    "efficientnet_v2_s_stride1": partial(_efficientnet_v2_s, stride=1),
    "compact": _compact,
    "compact_small": _compact_small,
    "compact_wide": _compact_wide,
    "vgg19_bn": _vgg19_bn,
}


def require_arch(arch: str) -> None:
    """Refuse a network that does not exist.

    Raises: UsageError with the nearest name; for `timm:NAME` also where timm is not installed.
    """
    if arch.startswith(TIMM):
        known = _timm().list_models()
        if arch.removeprefix(TIMM) not in known:
            near = difflib.get_close_matches(arch.removeprefix(TIMM), known, 3)
            hint = f"did you mean {' or '.join(TIMM + name for name in near)}?" if near else "see timm.list_models()"
            raise UsageError(f"unknown arch {arch!r}: timm has no such model; {hint}")
    elif arch not in BACKBONES:
        near = difflib.get_close_matches(arch, BACKBONES, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"unknown arch {arch!r}: {hint}there are {', '.join(BACKBONES)}, and timm:NAME")


def build_backbone(arch: str, classes: int, size: int) -> nn.Module:
    """Return a network with fresh weights, in training mode.

    Raises: UsageError for an unknown `arch`, and for one that does not take pictures of `size` pixels a side.
    """
    require_arch(arch)
    if arch.startswith(TIMM):
        return _build_timm(arch, classes, size)
    return BACKBONES[arch](classes, size)


def _timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError:
        raise UsageError("networks named timm:NAME need the package timm; pip install 'hcr[timm]'") from None
    return timm


def _build_timm(arch: str, classes: int, size: int) -> nn.Module:
    """Return a timm model with fresh weights, tried with pictures: timm does not say which sizes a model takes."""
    import torch

    build = partial(_timm().create_model, arch.removeprefix(TIMM), in_chans=1, num_classes=classes)
    try:
        try:
            network: nn.Module = build(img_size=size)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            network = build()
        # In training mode, in which some give more than logits; in a copy, since norms would keep these statistics.
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = copy.deepcopy(network).train()(torch.zeros(2, 1, size, size))
    except Exception as error:  # somebody else's network may raise anything
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise UsageError(
            f"{arch} does not take pictures of {size} px ({reason}); pack larger ones or choose another arch"
        ) from None
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, classes):
        raise UsageError(f"{arch} does not give one number a class, as training needs; choose another arch")
    return network
