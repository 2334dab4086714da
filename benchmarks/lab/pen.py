"""How many pictures a second the pen draws, and the degradations take.

    python benchmarks/lab/pen.py [--device cuda] [--size 64] [--threads 1] [--seconds 10] [--font FILE]

All characters of GB2312 level 1, every picture by another writer. On a GPU nothing waits for the host between batches;
the clock stops when the last picture is there. Where other programs run, a core's own time says more.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import table

from hcr.charset import Charset
from hcr.feed.degrade import degrade
from hcr.synth import Generator


def a_second(work: Callable[[int], object], pictures: int, seconds: float, device: str) -> tuple[float, float]:
    """Return how many pictures `work(step)` makes a second, and a second of a core, at `pictures` a call."""

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    for step in range(3):
        work(step)
    wait()
    began, busy, calls = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(5):
            work(calls)
            calls += 1
        wait()
    done = calls * pictures
    return done / (time.perf_counter() - began), done / (time.process_time() - busy)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    parser.add_argument("--batch", type=int, help="pictures a call; default 512, 8192 on a GPU")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--font", type=Path, action="append", default=[], help="as hcr-train takes it; may be repeated")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    batch = given.batch or (512 if given.device == "cpu" else 8192)
    characters = Charset.level1().characters
    # With many fonts other processes take part in the making.
    began, busy = time.perf_counter(), sum(os.times()[:4])
    pen = Generator(characters, given.device, given.font)
    made, worked = time.perf_counter() - began, sum(os.times()[:4]) - busy
    places = torch.arange(batch)

    def draw(step: int) -> torch.Tensor:
        number = places + step * batch
        return pen.draw(number * 7 % len(characters), number, number * 0, seed=1, size=given.size)

    pictures = draw(0)
    rows = [["making the pen of 3,755 characters", f"{made:.1f} s", f"{worked:.1f} s"]]
    for name, work in (
        ("draw", draw),
        ("degrade", lambda step: degrade(pictures, seed=1, step=step)),
        ("both", lambda step: degrade(draw(step), seed=1, step=step)),
    ):
        rate, of_core = a_second(work, batch, given.seconds, given.device)
        rows.append([name, f"{rate:,.0f} pictures", f"{of_core:,.0f} pictures"])
    what = f"{given.device}, {given.size} px, batches of {batch}"
    print(table([what, "a second on the clock", "a second of a core's time"], rows))


if __name__ == "__main__":
    main()
