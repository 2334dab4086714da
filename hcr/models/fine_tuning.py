"""From a checkpoint's weights to a model with other characters, before its first training step.

Only what follows from the number of classes is cut and sewn; every other weight must fit as it is. A network that is
partly somebody else's would start, and nobody would see why it learns badly.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from hcr.charset import Charset
from hcr.errors import DataError, UsageError
from hcr.models.backbones import build_backbone
from hcr.models.recognizer import Recognizer
from hcr.models.weights import load_weights, read_model, require_preprocessing


class Transfer(NamedTuple):
    """Counts of characters: the model's that the weights knew, and did not know; theirs that the model lacks."""

    shared: int
    new: int
    dropped: int


def transfer(model: Recognizer, path: Path) -> Transfer:
    """Take over the averaged weights (EMA) of a checkpoint, or released ones, whose characters may be others.

    The classifier keeps the checkpoint's rows for shared characters and the model's own, fresh ones for new characters.
    The random state stays as it was. The picture's size may differ where no weight depends on it.

    Raises: UsageError for another arch; DataError as `read_model` does, for other preprocessing, for weights of
    another shape, and where no character is shared.
    """
    content = read_model(path)
    require_preprocessing(content, path)
    if content["arch"] != model.arch:
        raise UsageError(f"{path}: weights of {content['arch']}, expected {model.arch}; choose the arch of the weights")
    theirs = Charset(content["characters"])
    shared = [char for char in model.charset.characters if char in theirs]
    if not shared:
        raise DataError(
            f"{path}: none of its {len(theirs)} characters is among the model's {len(model.charset)}; "
            "use weights that know some of them"
        )
    to = torch.tensor([model.charset.label(char) for char in shared])
    of = torch.tensor([theirs.label(char) for char in shared])
    state, own = dict(content["ema"]), model.state_dict()
    for key in classifier(model) & state.keys():
        expected = [len(theirs), *own[key].shape[1:]]
        if list(state[key].shape) != expected:
            raise DataError(f"{path}: weights of another model: {key} is {list(state[key].shape)}, expected {expected}")
        rows = own[key].cpu().clone()
        rows[to] = state[key][of].to(rows.dtype)
        state[key] = rows
    try:
        load_weights(model, state, path)
    except DataError as error:
        if content["size"] == model.size:
            raise
        raise DataError(
            f"{error}; {model.arch} is bound to the size it was trained on: take pictures of {content['size']} px"
        ) from None
    return Transfer(len(shared), len(model.charset) - len(shared), len(theirs) - len(shared))


def classifier(model: Recognizer) -> set[str]:
    """Name the tensors with a row a class: those that change with the number of classes, be it one layer or two."""
    with torch.random.fork_rng(devices=[]):
        wider = build_backbone(model.arch, len(model.charset) + 1, model.size).state_dict()
    own = model.backbone.state_dict()
    return {f"backbone.{key}" for key, value in wider.items() if value.shape != own[key].shape}
