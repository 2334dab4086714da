"""What a Python program calls: a pack opened, a model evaluated, a network trained; `hcr.load` is in hcr/inference.

Each function is one call into the package that does the work, with paths and names as a person writes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hcr.errors import UsageError
from hcr.layout import find_pack, find_weights
from hcr.stop import Progress, silent

if TYPE_CHECKING:
    from hcr.evaluation import Evaluation
    from hcr.feed.dataset import PackDataset, Target
    from hcr.inference.predictor import Predictor
    from hcr.training import Execution, Observer, TrainConfig, TrainSummary


def open_pack(folder: str | Path | None = None, split: str = "test", *, target: Target = "character") -> PackDataset:
    """Open one split of a pack as a torch Dataset of (picture uint8[S, S], character).

    folder: the pack; None for the only one in data/packed. split: "train", "val" or "test". target: "character" gives
    texts, "label" integers from 0, as other people's loss functions want them.

    Raises: DataError for no pack or a damaged one, UsageError for a split that it lacks.

    Example:
        pack = hcr.open_pack("data/packed/hwdb1.1-64", split="train", target="label")
        loader = torch.utils.data.DataLoader(pack, batch_size=16, shuffle=True)
        images, labels = next(iter(loader))  # uint8[16, 64, 64], int64[16]
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

    model: what `hcr.load` returned. Its network is evaluated as it is in memory; its file tells what it has seen.
    allow_seen: evaluate on data that the model has learnt from all the same. only_shared: where model and pack have
    other characters, count those that both have.

    Raises: DataError for data that the model has seen and for characters or sizes that differ.

    Example:
        model = hcr.load()
        pack = hcr.open_pack("data/packed/hwdb1.1-64", split="test")
        print(f"{hcr.evaluate(model, pack).top1:.2%}")
    """
    from hcr.evaluation import evaluate_checkpoint

    if model.weights is None:
        raise UsageError("this model came from no file, so what it has seen is unknown; use one from hcr.load")
    return evaluate_checkpoint(
        model.weights,
        pack.folder,
        pack.split,
        batch_size=batch_size,
        workers=workers,
        device=model.device.type,
        allow_seen=allow_seen,
        only_shared=only_shared,
        model=model.recognizer,
        progress=progress,
    )


def train(
    config: TrainConfig | None = None,
    *,
    data: str | Path | None = None,
    run: str | None = None,
    resume: bool = False,
    init: str | Path | None = None,
    execution: Execution | None = None,
    observer: Observer | None = None,
) -> TrainSummary:
    """Train a network and write artifacts/<run>: checkpoints, metrics, curves and run.json.

    config: the settings; those that equal their default are the resumed run's own. data: the pack; None for the run's,
    or the only one in data/packed. run: a plain name; None for <pack>-<arch>. resume: continue from the newest valid
    checkpoint, and start where there is none. init: weights to begin with, named as for `hcr.load`.
    execution: device, workers, checkpoints; None for the defaults. observer: hears of steps and epochs.

    Afterwards torch's settings and random numbers are as before; on a CPU the process keeps the memory that
    it frees, since glibc's mallopt cannot be undone.

    Raises: Stopped after Ctrl-C or SIGTERM, with everything saved; UsageError and DataError for what does not fit.

    Example:
        config = hcr.TrainConfig(arch="compact", epochs=3)
        summary = hcr.train(config, data="data/packed/hwdb1.1-64", run="first", resume=True)
        model = hcr.load("first")
    """
    from hcr.training import Execution, TrainConfig
    from hcr.training import train as train_run
    from hcr.training.observer import NullObserver
    from hcr.training.setup import choose_run

    config = config or TrainConfig()
    pack, folder = choose_run(config, None if data is None else Path(data), run, resume=resume)
    return train_run(
        config,
        pack,
        folder,
        execution or Execution(),
        observer or NullObserver(),
        resume=resume,
        init=None if init is None else find_weights(init),
    )
