"""What a Python program calls: a pack opened, a model evaluated, a network trained; `hcr.load` is in hcr/inference.

Each function is one call into the room that does the work, with paths and names as a person writes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hcr.errors import UsageError
from hcr.layout import find_pack
from hcr.stop import Progress, silent

if TYPE_CHECKING:
    from hcr.evaluation import Evaluation
    from hcr.feed.dataset import PackDataset, Target
    from hcr.inference.predictor import Predictor


def open_pack(folder: str | Path | None = None, split: str = "test", *, target: Target = "character") -> PackDataset:
    """Open one split of a pack as a torch Dataset of (picture uint8[S, S], character).

    folder: the pack; None for the only one in data/packed. split: "train", "val" or "test". target: "character" gives
    texts, "label" integers from 0, as other people's loss functions want them.

    Raises: DataError for no pack or a damaged one, UsageError for a split that it lacks.

    Example:
        pack = hcr.open_pack("data/packed/hwdb1.1-64", split="train", target="label")
        loader = torch.utils.data.DataLoader(pack, batch_size=16, shuffle=True)
        images, labels = next(iter(loader))      # uint8[16, 64, 64], int64[16]
    """
    from hcr.evaluation.analysis import open_split
    from hcr.feed.dataset import PackDataset

    path = find_pack(None if folder is None else Path(folder))
    open_split(path, split)
    return PackDataset(path, split, target)


def evaluate(
    model: Predictor,
    pack: PackDataset,
    *,
    allow_seen: bool = False,
    only_shared: bool = False,
    batch_size: int = 256,
    workers: int = 0,
    progress: Progress = silent,
) -> Evaluation:
    """Name every picture of a pack's split and sum up.

    model: what `hcr.load` returned. The result has `top1` and `top5` (0 to 1), `summary` with intervals and per-class
    figures, and `predictions`. allow_seen: evaluate on data that the model has learnt from all the same.
    only_shared: where model and pack have other characters, count those that both have.

    Raises: DataError for data that the model has seen and for characters or sizes that differ.

    Example:
        model = hcr.load()
        pack = hcr.open_pack("data/packed/hwdb1.1-64", split="test")
        print(f"{hcr.evaluate(model, pack).top1:.2%}")
    """
    from hcr.evaluation import make_evaluator

    if model.weights is None:
        raise UsageError("this model came from no file, so what it has seen is unknown; use one from hcr.load")
    evaluator = make_evaluator(
        model.weights,
        pack.folder,
        pack.split,
        batch_size=batch_size,
        workers=workers,
        device=model.device.type,
        allow_seen=allow_seen,
        only_shared=only_shared,
    )
    return evaluator.evaluation(progress)
