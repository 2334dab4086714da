"""How near training on a GPU comes to what the GPU can do: EfficientNetV2-S at 64 px, fed from a pack.

Draws a corpus of `--samples` and packs it (both stay for the next run), then prints one section after another, so that
a run that is cut short has given the first ones. Meant to take less than ten minutes on an H100 with 16 cores. Without
CUDA it ends with code 2; `--device cpu --tiny` only shows that it works.

    python benchmarks/gpu.py
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import loops
import torch
from stores import STORES

from hcr.feed.augment import augment
from hcr.feed.loader import Loader
from hcr.feed.sampler import Batch, TrainingBatches
from hcr.pack.store import open_reader
from hcr.stop import StopFlag
from hcr.training import Execution, TrainConfig, train
from hcr.training.distributed import Processes
from hcr.training.observer import NullObserver
from hcr.training.timing import EpochClock
from hcr.training.trainer import Trainer, start

TUTORIAL_SAMPLES = 20_000  # PNG files for the tutorial's loop, which would not get further


def hcr_data(*arguments: object) -> None:
    """Run hcr-data, which need not be on the path."""
    code = "import sys; from hcr.cli.data import main; main(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, stdout=sys.stderr)


def prepare(given: argparse.Namespace) -> tuple[Path, Path]:
    """Draw and pack; give the train split and PNG files for the tutorial's loop."""
    characters = 12 if given.tiny else 3755
    writers = -(-given.samples // characters)
    work = given.work / f"gpu-{characters}-{writers}"
    pack, pictures = work / "pack", work / "png"
    began = time.monotonic()
    if not pack.is_dir():
        hcr_data("draw", "--charset", characters, "--writers", writers, "--out", work / "drawn")
        drawn = time.monotonic()
        # Links in one folder: test writers train here, too.
        files = common.flat(common.gnt_files(work / "drawn"), work / "gnt")
        hcr_data("pack", files, "--charset", "all", "--val", 0, "--out", pack)
        common.say(f"drawn in {drawn - began:.0f} s, packed in {time.monotonic() - drawn:.0f} s")
    if not pictures.is_dir():
        files = sorted((work / "gnt").iterdir())
        STORES["png-native"].write(files[: -(-min(given.samples, TUTORIAL_SAMPLES) // characters)], pictures)
    return pack / "train.lmdb", pictures


def sync(device: str) -> None:
    """Wait until the device has done everything."""
    if device == "cuda":
        torch.cuda.synchronize()


class Bench:
    """What the sections share."""

    def __init__(self, given: argparse.Namespace, path: Path, pictures: Path) -> None:
        self.given, self.path, self.pictures, self.device = given, path, pictures, given.device
        self.arch = "compact" if given.tiny else "efficientnet_v2_s"
        self.runs = path.parents[1] / "runs"
        self.reader = open_reader(path)

    def trainer(self, batch: int, **settings: Any) -> Trainer:
        """Make a trainer of our own, ready to step."""
        config = TrainConfig(arch=self.arch, batch_size=batch, epochs=1, **settings)
        run = self.runs / str(time.time_ns())
        execution, processes = Execution(self.device, 0), Processes(device=self.device)
        trainer = start(config, self.path.parent, run, execution, NullObserver(), StopFlag(), processes)
        trainer.state.model.train()
        return trainer

    def random_batch(self, batch: int) -> Batch:
        """Return random pictures that already lie on the device."""
        size = self.reader.size
        return Batch(
            torch.randint(0, 256, (batch, 1, size, size), dtype=torch.uint8, device=self.device),
            torch.randint(0, len(self.reader.charset), (batch,), device=self.device),
            torch.arange(batch),
        )

    def feed(self, batch: int, cache: str, workers: int) -> Iterator[Batch]:
        """Return batches of the pack for ever."""
        order = TrainingBatches(len(self.reader), batch, seed=0)
        loader = Loader(self.path, order, workers=workers, cache=cache, device=self.device)
        for order.epoch in itertools.count():
            yield from loader

    def steps_for(self, step: Callable[[], object]) -> int:
        """Warm up, and find how many steps fill a turn."""
        for _ in range(self.given.warm_up):
            step()
        sync(self.device)
        began = time.perf_counter()
        for _ in range(self.given.warm_up):
            step()
        sync(self.device)
        return max(2, round(self.given.seconds * self.given.warm_up / (time.perf_counter() - began)))

    def turns(self, steps: int, step: Callable[[], int]) -> list[float]:
        """Return pictures a second of each turn of so many steps."""
        speeds = []
        for _ in range(self.given.repeats):
            sync(self.device)
            began, done = time.perf_counter(), 0
            for _ in range(steps):
                done += step()
            sync(self.device)
            speeds.append(done / (time.perf_counter() - began))
        return speeds

    def feeding(self) -> str:
        """Our trainer's step with every way of feeding, in turn, against random resident pictures."""
        batch, workers = self.given.batch, self.given.workers
        trainer = self.trainer(batch)
        sources: dict[str, Iterator[Batch]] = {
            "random resident pictures (the ceiling)": itertools.repeat(self.random_batch(batch))
        }
        for cache, count in (("device", 0), ("ram", 0), ("none", workers), ("none", 0)):
            sources[f"`--cache {cache}`" + ("" if cache != "none" else f" `--workers {count}`")] = self.feed(
                batch, cache, count
            )
        ceiling = next(iter(sources))
        steps = self.steps_for(lambda: trainer.stepper.take(next(sources[ceiling]), 1e-3))
        lines: dict[str, list[dict[str, Any]]] = {name: [] for name in sources}
        for turn in range(self.given.repeats):
            common.say(f"feeding, turn {turn + 1} of {self.given.repeats}")
            for name, source in sources.items():
                # What was fetched ahead while others had their turn does not count.
                for fetched in itertools.islice(source, max(2, 4 * workers if turn else 2)):
                    trainer.stepper.take(fetched, 1e-3)
                sync(self.device)
                clock = EpochClock(self.device)
                for fetched in clock.watch(itertools.islice(source, steps)):
                    trainer.stepper.take(fetched, 1e-3)
                lines[name].append(clock.row(0, steps, steps * batch))
        middle = {
            name: statistics.median(line["pictures_per_second"] for line in found) for name, found in lines.items()
        }
        rows = [
            (
                name,
                common.spread([line["pictures_per_second"] for line in found]),
                f"{middle[name] / middle[ceiling]:.1%}",
                f"{statistics.median(line['data_wait'] for line in found):.2%}",
            )
            for name, found in lines.items()
        ]
        return f"Our step, batch {batch}, {steps} steps a turn:\n\n" + common.table(
            ("fed by", "pictures a second", "of the ceiling", "waiting for data"), rows
        )

    def epoch(self) -> str:
        """One epoch as `hcr-train` runs it."""
        batch, run = self.given.epoch_batch, self.runs / "epoch"
        execution = Execution(self.device, self.given.workers, "device")
        config = TrainConfig(arch=self.arch, batch_size=batch, epochs=1)
        began = time.perf_counter()
        train(config, self.path.parent, run, execution, NullObserver())
        whole = time.perf_counter() - began
        line = json.loads((run / "timings.jsonl").read_text("utf-8"))
        return (
            f"One epoch of {len(self.reader):,} samples, batch {batch}, `--cache device`: {line['seconds']:.1f} s "
            f"({line['pictures_per_second']:,.0f} pictures a second, {line['data_wait']:.2%} waiting for data); with "
            f"reading the pack, warming up and the checkpoint {whole:.1f} s."
        )

    def others(self) -> str:
        """The loops that people start from, one after the other: their many workers would fetch ahead."""
        batch, workers, charset = self.given.batch, self.given.other_workers, self.reader.charset
        common_arguments = (self.path, charset, self.arch, batch, workers, self.device)
        ways: dict[str, Callable[[], Iterator[int]]] = {
            f"torchvision's reference loop, {workers} workers": lambda: loops.reference(*common_arguments),
            f"a timm-style loop, {workers} workers": lambda: loops.timm_style(*common_arguments),
            "the tutorial's loop, PNG files, no workers": lambda: loops.tutorial(self.pictures, batch, self.device),
        }
        rows = []
        for name, make in ways.items():
            common.say(name)
            self.reset_memory()
            steps = make()
            take = self.steps_for(lambda steps=steps: next(steps))
            if workers:
                # Until what was fetched ahead at the start is used up.
                for _ in range(min(take, 2 * workers)):
                    next(steps)
            speeds = self.turns(take, lambda steps=steps: next(steps))
            rows.append((name, common.spread(speeds), self.memory()))
        return f"Other loops, batch {batch}:\n\n" + common.table(("loop", "pictures a second", "GPU memory, MiB"), rows)

    def reset_memory(self) -> None:
        """Begin to count device memory anew."""
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def memory(self) -> str:
        """Return the most device memory that tensors took."""
        return f"{torch.cuda.max_memory_allocated() / 2**20:,.0f}" if self.device == "cuda" else "none"

    def scaling(self) -> str:
        """Our step on random resident pictures, by batch size."""
        rows = []
        for batch in self.given.batches:
            common.say(f"batch {batch}")
            self.reset_memory()
            trainer, pictures = self.trainer(batch), self.random_batch(batch)
            trainer.state.model.train()

            def step(trainer: Trainer = trainer, pictures: Batch = pictures, batch: int = batch) -> int:
                trainer.stepper.take(pictures, 1e-3)
                return batch

            rows.append((str(batch), common.spread(self.turns(self.steps_for(step), step)), self.memory()))
            del trainer, step
        return "Scaling, random resident pictures:\n\n" + common.table(
            ("batch", "pictures a second", "GPU memory, MiB"), rows
        )

    def augmentation(self) -> str:
        """What the augmentation costs of a step: eager, compiled, and by leaving it out."""
        batch = self.given.batch
        pictures, trainer = self.random_batch(batch), self.trainer(batch)
        trainer.state.model.train()
        plain = self.trainer(batch)
        plain.state.model.train()
        plain.config = replace(plain.config, augmentation=False)
        numbers = itertools.count()
        ways: dict[str, Callable[[], object]] = {
            "a step": lambda: trainer.stepper.take(pictures, 1e-3),
            "a step without augmentation": lambda: plain.stepper.take(pictures, 1e-3),
            "augmentation alone, as it is": lambda: augment(pictures.images, 0, next(numbers)),
        }
        if not self.given.tiny:
            compiled = torch.compile(augment)
            ways["augmentation alone, torch.compile"] = lambda: compiled(pictures.images, 0, next(numbers))
        rows, whole = [], 0.0
        for name, way in ways.items():
            common.say(name)

            def step(way: Callable[[], object] = way) -> int:
                way()
                return 1

            try:
                seconds = [1000 / speed for speed in self.turns(self.steps_for(step), step)]
            except Exception as error:
                rows.append((name, f"failed: {type(error).__name__}", ""))
                continue
            whole = whole or statistics.median(seconds)
            rows.append((name, common.spread(seconds, 2), f"{statistics.median(seconds) / whole:.1%}"))
        return f"Augmentation, batch {batch}:\n\n" + common.table(("", "milliseconds", "of a step"), rows)


def main() -> None:
    """Run every section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a few steps of the compact network on a few pictures")
    parser.add_argument("--samples", type=int, default=897_758)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--epoch-batch", type=int, default=1024, help="of the timed epoch (%(default)s)")
    parser.add_argument("--workers", type=int, default=4, help="of our streaming (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a turn (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--work", type=Path, default=common.WORK, help="folder for corpus and pack (%(default)s)")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device", file=sys.stderr)
        sys.exit(2)
    given.batches, given.other_workers, given.warm_up = [64, 128, 256, 512, 1024, 2048], common.cores(), 10
    if given.tiny:
        given.samples, given.batch, given.epoch_batch, given.batches, given.workers = 72, 4, 8, [2, 4], 1
        given.seconds, given.repeats, given.other_workers, given.warm_up = 0.05, 2, 1, 1
    began = time.monotonic()
    before = common.machine()
    bench = Bench(given, *prepare(given))
    name = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    print(
        f"`{common.command_line()}`: {name}, {bench.arch} at {bench.reader.size} px, bfloat16, "
        f"{len(bench.reader):,} drawn samples of {len(bench.reader.charset):,} characters. "
        f"Medians of {given.repeats} turns (lowest–highest). {before}. "
        f"{common.versions(['hcr', 'torch', 'torchvision', 'numpy', 'lmdb'])}.",
        flush=True,
    )
    for section in (bench.feeding, bench.epoch, bench.others, bench.augmentation, bench.scaling):
        print(f"\n{section()}", flush=True)
        if given.device == "cuda":
            torch.cuda.empty_cache()
    common.remove(bench.runs)
    common.say(f"done in {time.monotonic() - began:.0f} s, load average {common.load()}")


if __name__ == "__main__":
    main()
