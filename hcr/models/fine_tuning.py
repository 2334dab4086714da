"""Fine-tuning: a checkpoint's weights into a model with other characters, before its first training step.

Only the tensors with a row for each class change; every other weight must fit as it is. A network of which only a part
was loaded would start, and nobody would see why it learns badly.
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
from hcr.text import counted


class Transfer(NamedTuple):
    """Counts of characters: those the weights knew, those new to them, and those of the weights that were dropped."""

    shared: int
    new: int
    dropped: int


def transfer(model: Recognizer, path: Path) -> Transfer:
    """Load the averaged weights (EMA) of a checkpoint, or released ones, whose characters may be others.

    The classifier gets the checkpoint's rows for shared characters and keeps its fresh ones for new characters. The
    random state stays as it was. The picture's size may differ where no weight depends on it.

    Raises: UsageError for another arch; DataError as `read_model` does, for other preprocessing, for weights of
    another shape, and where no character is shared.
    """
    content = read_model(path)
    require_preprocessing(content, path)
    if content["arch"] != model.arch:
        raise UsageError(f"{path}: weights of {content['arch']}, expected {model.arch}; choose the arch of the weights")
    theirs = Charset(content["characters"])
    labels = torch.from_numpy(model.charset.labels_in(theirs))
    new_rows = (labels >= 0).nonzero().flatten()
    old_rows = labels[new_rows]
    if not len(new_rows):
        raise DataError(
            f"{path}: none of its {counted(len(theirs), 'character')} is among the model's {len(model.charset)}; "
            "use weights that know some of them"
        )
    state, own = dict(content["ema"]), model.state_dict()
    for key in classifier(model) & state.keys():
        expected = [len(theirs), *own[key].shape[1:]]
        if list(state[key].shape) != expected:
            raise DataError(f"{path}: weights of another model: {key} is {list(state[key].shape)}, expected {expected}")
        rows = own[key].cpu().clone()
        rows[new_rows] = state[key][old_rows].to(rows.dtype)
        state[key] = rows
    try:
        load_weights(model, state, path)
    except DataError as error:
        if content["size"] == model.size:
            raise
        raise DataError(
            f"{error}; {model.arch} is bound to the size it was trained on: take pictures of {content['size']} px"
        ) from None
    shared = len(new_rows)
    return Transfer(shared, len(model.charset) - shared, len(theirs) - shared)


def classifier(model: Recognizer) -> set[str]:
    """Return the names of the tensors with a row for each class, found by building the network with one class more."""
    with torch.random.fork_rng(devices=[]):
        wider = build_backbone(model.arch, len(model.charset) + 1, model.size).state_dict()
    own = model.backbone.state_dict()
    return {f"backbone.{key}" for key, value in wider.items() if value.shape != own[key].shape}
