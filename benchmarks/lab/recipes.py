"""What each ingredient of the recipe gives, and what the recipe gives against the tutorial's own way.

Every run sees the same pictures at 32 px for the same number of epochs, on one thread, in a process of its own. A run
that is finished is a line of results.jsonl in the work folder and is not run again; one that was stopped goes on. The
weights before averaging are judged too, so that each run is also the one without averaging.

    python benchmarks/lab/recipes.py CORPUS              the compact network, an ingredient less or more
    python benchmarks/lab/recipes.py CORPUS --effnet     EfficientNetV2-S, 12 epochs, against the tutorial's way
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
import common

from hcr.charset import Charset
from hcr.config import read_recipe
from hcr.corpus.find import find_corpus
from hcr.corpus.sample import Sample
from hcr.errors import HcrError
from hcr.feed.loader import Loader
from hcr.feed.sampler import SequentialBatches, epoch_order
from hcr.files import atomic_write
from hcr.layout import checkpoints
from hcr.models import Recognizer, read_checkpoint
from hcr.pack.config import PackConfig
from hcr.pack.packer import pack
from hcr.pack.store import open_reader
from hcr.training import Execution, TrainConfig, train
from hcr.training.distributed import Processes
from hcr.training.observer import NullObserver
from hcr.training.trainer import validate

SIZE = 32
EPOCHS, EFFNET_EPOCHS = 7, 12
# A step of 60 pictures, its half and its double divide REAL's 8,160: all runs then see the same number of them.
# Clipping became a default by what this ladder found.
RECIPE: dict[str, Any] = {"arch": "compact", "size": SIZE, "batch_size": 60, "precision": "bf16", "clip": 0.0}
BARE: dict[str, Any] = {
    "augmentation": False, "label_smoothing": 0.0, "weight_decay": 0.0, "schedule": "plateau",
}  # fmt: skip
REFERENCE, TUTORIAL = "the recipe", "the tutorial's own way"
LADDER: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    "without augmentation": {"augmentation": False},
    "without label smoothing": {"label_smoothing": 0.0},
    "without weight decay (Adam)": {"weight_decay": 0.0},
    "without warm-up": {"warmup": 0.0},
    "plateau instead of cosine with warm-up": {"schedule": "plateau"},
    "with clipping at 1": {"clip": 1.0},
    "half the rate": {"lr": 1e-3},
    "twice the rate": {"lr": 4e-3},
    "steps of 30, rate by √½": {"batch_size": 30, "lr": 2e-3 * 0.5**0.5},
    "steps of 120, rate by √2": {"batch_size": 120, "lr": 2e-3 * 2**0.5},
    "steps in 2 parts": {"accumulate": 2},
    "fp32 instead of bf16": {"precision": "fp32"},
    "bare: plateau, none of the others": BARE,
    "bare, with augmentation": BARE | {"augmentation": True},
    "bare, with label smoothing": BARE | {"label_smoothing": 0.1},
    "bare, with weight decay": BARE | {"weight_decay": 0.05},
    "bare, with cosine and warm-up": BARE | {"schedule": "cosine"},
    "bare, with clipping at 1": BARE | {"clip": 1.0},
}
EFFNET: dict[str, dict[str, Any]] = {
    TUTORIAL: {},
    "pipelines/tutorial-effnet32.toml": {},
    # Its depthwise convolutions are not quicker in bf16 on a CPU.
    REFERENCE: {"arch": "efficientnet_v2_s", "precision": "fp32"},
    "the recipe, clipped, a quarter of the rate": {
        "arch": "efficientnet_v2_s",
        "precision": "fp32",
        "clip": 1.0,
        "lr": 5e-4,
    },
    "the same, stem stride 1": {
        "arch": "efficientnet_v2_s_stride1",
        "precision": "fp32",
        "clip": 1.0,
        "lr": 5e-4,
    },
}
# Of ImageNet, as the tutorial normalises.
MEAN, STD = (torch.tensor(three)[:, None, None] for three in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def settings_of(variant: str, own: dict[str, Any], epochs: int, seed: int) -> dict[str, Any]:
    """Return all that decides a run's result, beside the pack."""
    if variant == TUTORIAL:
        return {"way": TUTORIAL, "epochs": epochs, "seed": seed}
    path = Path(__file__).parents[2] / variant
    recipe = read_recipe(path, TrainConfig) if variant.endswith(".toml") else RECIPE | own
    usual = {"batch_size": 256, "precision": "fp32"}
    return asdict(TrainConfig(**usual | recipe | {"epochs": epochs, "seed": seed}))


def train_ours(settings: dict[str, Any], data: Path, run: Path) -> dict[str, Any]:
    """Train by the project's trainer; judge the averaged weights and the last ones."""
    train(
        TrainConfig(**settings),
        data,
        run,
        Execution("cpu", workers=0, cache="ram", checkpoint_every=60.0),
        NullObserver(),
        resume=True,
    )
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    content = read_checkpoint(checkpoints(run)[0])
    model = Recognizer(content["arch"], Charset(content["characters"]), content["size"])
    model.load_state_dict(content["model"])
    loader = Loader(data / "val.lmdb", SequentialBatches(row["val_n"], 256))
    half = settings["precision"] == "bf16"
    _, last, _, _ = validate(
        model.eval(), loader, lambda: torch.autocast("cpu", torch.bfloat16, half), Processes(), lambda count: None
    )
    return {"averaged": row["val_top1"], "last": last, "seen": row["step"] * settings["batch_size"]}


def train_tutorial(settings: dict[str, Any], corpus: Path, data: Path, run: Path) -> dict[str, Any]:
    """Train as the tutorial does: squashed, grey tripled, Adam at 1e-4, steps of 512, plateau of the last loss."""
    from torchvision.models import efficientnet_v2_s

    seed, saved = settings["seed"], run / "tutorial.pt"
    images, labels = squashed(corpus, data / "train.lmdb")
    torch.manual_seed(seed)
    model = efficientnet_v2_s(num_classes=len(open_reader(data / "train.lmdb").charset))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule}
    done = 0
    if saved.is_file():
        content = torch.load(saved, weights_only=True)
        done = content.pop("epochs")
        for name, state in content.items():
            parts[name].load_state_dict(state)
    run.mkdir(parents=True, exist_ok=True)
    for epoch in range(done, settings["epochs"]):
        # Of dropout and dropped layers: one that goes on draws what it would have drawn.
        torch.manual_seed((seed << 16) + epoch)
        model.train()
        for batch in torch.from_numpy(epoch_order(len(images), seed, epoch)).split(512):
            loss = F.cross_entropy(model(normalised(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step(loss.item())
        with atomic_write(saved) as file:
            torch.save({"epochs": epoch + 1} | {name: part.state_dict() for name, part in parts.items()}, file)
    images, labels = squashed(corpus, data / "val.lmdb")
    with torch.inference_mode():
        found = torch.cat([model.eval()(normalised(part)).argmax(1) for part in images.split(256)])
    top1 = float((found == labels).float().mean())
    return {"averaged": None, "last": top1, "seen": settings["epochs"] * len(open_reader(data / "train.lmdb"))}


def squashed(corpus: Path, path: Path) -> tuple[Tensor, Tensor]:
    """Return the pictures of a pack's split as the tutorial resizes them, uint8[N, 1, S, S], and labels int64[N].

    From the source's own crops: packing would crop to the ink and keep its aspect.
    """
    reader = open_reader(path)
    places = {origin: place for place, origin in enumerate(reader.origins(range(len(reader))))}
    images = np.empty((len(reader), 1, SIZE, SIZE), np.uint8)
    for unit in find_corpus([corpus], allowed=None, numbering=Charset.level1()).partitions:
        for sample in unit.samples(hashlib.sha256()):
            if isinstance(sample, Sample) and sample.origin in places:
                resized = Image.fromarray(sample.picture).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
                images[places.pop(sample.origin)] = resized
    assert not places, f"{len(places)} pictures of {path} are not in {corpus}"
    return torch.from_numpy(images), torch.from_numpy(reader.labels.astype(np.int64))


def normalised(images: Tensor) -> Tensor:
    """Make float32[B, 3, S, S] of uint8[B, 1, S, S]."""
    return (images.float() / 255 - MEAN) / STD


def one(settings: dict[str, Any], corpus: Path, data: Path, run: Path) -> dict[str, Any]:
    """Do a run to its end, in a process of its own; CPU seconds are known where it was not stopped in between."""
    common.end_with_parent()
    torch.set_num_threads(1)
    fresh, began = not run.exists(), time.process_time()
    result = train_tutorial(settings, corpus, data, run) if "way" in settings else train_ours(settings, data, run)
    return result | {"cpu_seconds": time.process_time() - began if fresh else None}


def results_of(given: argparse.Namespace, runs: dict[str, dict[str, Any]], data: Path) -> dict[str, dict[str, Any]]:
    """Do the runs that have no result yet; give all results by key."""
    work, known = data.parent, data.parent / "results.jsonl"
    lines = known.read_text("utf-8").splitlines() if known.is_file() else []
    results = {line["key"]: line for line in map(json.loads, lines)}
    todo = {key: settings for key, settings in runs.items() if key not in results}
    common.say(f"{len(runs) - len(todo)} of {len(runs)} runs are done")
    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.jobs, spawn, max_tasks_per_child=1) as pool:
        futures = {
            pool.submit(one, settings, given.corpus, data, work / "runs" / key): key for key, settings in todo.items()
        }
        for number, future in enumerate(as_completed(futures), 1):
            key = futures[future]
            try:
                result = results[key] = {"key": key, **future.result(), "settings": todo[key]}
            except HcrError as error:
                pool.shutdown(cancel_futures=True)
                sys.exit(f"error: {error}")
            with known.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            common.remove(work / "runs" / key)
            common.say(f"{number} of {len(todo)}: top-1 {judged(result):.2f} %")
    return results


def judged(result: dict[str, Any]) -> float:
    """Return per cent: of the averaged weights where there are any."""
    return 100 * (result["last"] if result["averaged"] is None else result["averaged"])


def mean(values: Sequence[float], form: str = ".2f") -> str:
    """Write mean, lowest and highest."""
    middle, low, high = statistics.mean(values), min(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def row(variant: str, results: list[dict[str, Any]], reference: list[dict[str, Any]]) -> list[str]:
    """Write a variant's row: its results and the reference's, seed by seed."""
    averaged = [100 * result["averaged"] for result in results if result["averaged"] is not None]
    against = [judged(mine) - judged(other) for mine, other in zip(results, reference, strict=False)]
    seconds = [result["cpu_seconds"] for result in results if result["cpu_seconds"]]
    return [
        variant,
        mean(averaged) if averaged else "–",
        mean([100 * result["last"] for result in results]),
        "–" if results is reference or not reference else mean(against, "+.2f"),
        f"{results[0]['seen']:,}",
        f"{statistics.median(seconds):,.0f}" if seconds else "–",
    ]


def main() -> None:
    """Parse, pack, run what is not done, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="folder of .gnt files")
    parser.add_argument("--effnet", action="store_true", help="EfficientNetV2-S against the tutorial's own way")
    parser.add_argument("--variants", nargs="+", choices=[*LADDER, *EFFNET], metavar="NAME", help="only these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help=f"default: {EPOCHS}, with --effnet {EFFNET_EPOCHS}")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each on one thread")
    parser.add_argument("--work", type=Path, default=common.WORK)
    given = parser.parse_args()
    known = EFFNET if given.effnet else LADDER
    epochs = given.epochs or (EFFNET_EPOCHS if given.effnet else EPOCHS)
    chosen = [variant for variant in known if variant in (given.variants or known)]
    machine = common.machine()

    data = common.work_folder(given.work, given.corpus) / "recipes" / f"pack-{SIZE}"
    try:
        corpus = find_corpus([given.corpus], allowed=None, numbering=Charset.level1())
        pack(corpus, data, PackConfig(size=SIZE))
    except HcrError as error:
        sys.exit(f"error: {error}")
    training, validation = open_reader(data / "train.lmdb"), open_reader(data / "val.lmdb")
    runs: dict[str, dict[str, Any]] = {}
    keys: dict[str, list[str]] = {variant: [] for variant in chosen}
    # Seed by seed, so that a part of the work is a whole comparison.
    for seed in range(given.seeds):
        for variant in chosen:
            settings = settings_of(variant, known[variant], epochs, seed)
            content = json.dumps([training.digest, validation.digest, settings], sort_keys=True)
            key = hashlib.sha256(content.encode()).hexdigest()[:16]
            runs[key] = settings
            keys[variant].append(key)
    results = results_of(given, runs, data)
    by_variant = {variant: [results[key] for key in keys[variant]] for variant in chosen}
    print(
        f"`{common.command_line()}`: {len(training):,} pictures to train on, {len(validation):,} to validate on, "
        f"{len(training.charset)} characters at {SIZE} px; {epochs} epochs; top-1 % after the last, mean (lowest to "
        f"highest) of {given.seeds} seeds; differences seed by seed. One thread a run, {given.jobs} side by side on "
        f"{machine}; {common.versions(['torch', 'torchvision'])}.\n"
    )
    header = ["", "averaged weights", "last weights", "points against the recipe", "samples seen", "CPU seconds a run"]
    reference = by_variant.get(REFERENCE, [])
    print(common.table(header, [row(variant, found, reference) for variant, found in by_variant.items()]))


if __name__ == "__main__":
    main()
