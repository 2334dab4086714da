"""How well the pen teaches: a small network learns drawn characters alone and names real ones.

    python benchmarks/lab/pen_proxy.py FOLDER [--pictures 150000] [--classes 400] [--quick]
        [--degrade] [--without running] [--font FILE]

FOLDER holds real handwriting as .gnt files. The classes are its characters, those of GB2312 level 1 that look most like
them, and others spread over the rest; every answer counts against all of them. One thread, so that runs compare.
`--without` takes a habit from every hand, to see what it is worth.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from handwriting import fitted, read_samples

from hcr.charset import Charset
from hcr.feed.degrade import degrade
from hcr.models import Recognizer
from hcr.models.compact import Compact
from hcr.synth import Generator, StrokeTable, generator
from hcr.synth.style import WriterStyles

SIZE, BATCH, LR, SEED = 48, 128, 4e-3, 1
NEIGHBOURS = 3
HABITS = {
    "running": {"running": 0.002},
    "ties": {"fluency": 0.0},
    "joins": {"join": 0.0, "fluency": 0.0},
    "smoothing": {"smooth": 0.0},
    "kinds": {"kind_turn": 0.0, "kind_size": 0.0, "kind_bow": 0.0},
    "parts": {"half_shift": 0.0, "half_size": 0.0, "part_shift": 0.0, "part_size": 0.0},
    "hooks": {"left": 1.0},
    "touching": {"tight": 0.0},
    "tucking": {"tuck": 0.0},
    "proportions": {"likeness": 0.0},
    "softness": {"soft": 0.0},
    "grain": {"grain": 0.0},
}
"""What `--without` takes away: attributes of WriterStyles and what they become."""


class Quick(nn.Module):
    """Two convolutions on the compact network's maps of stroke directions: a sixth of its time."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        compact = Compact(1)
        self.maps = nn.Sequential(compact.evened, compact.features[0])
        layers = []
        for inputs, outputs in ((12, 48), (48, 128)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
        hidden = [nn.Linear(128 * 9, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, classes)]
        self.layers = nn.Sequential(nn.AvgPool2d(2), *layers, nn.Flatten(), nn.Dropout(0.2), *hidden)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits for uint8[B, 1, SIZE, SIZE]."""
        ink = (255 - images).float() / 255
        logits: torch.Tensor = self.layers(self.maps(ink / ink.amax((1, 2, 3), keepdim=True).clamp(min=0.1)))
        return logits


def real_pictures(folder: Path) -> tuple[str, torch.Tensor]:
    """Read every record below a folder: its characters in a row, uint8[N, 1, SIZE, SIZE]."""
    samples = read_samples(folder)
    return "".join(sample.char for sample in samples), torch.from_numpy(fitted(samples, SIZE))[:, None]


def classes(real: str, count: int) -> Charset:
    """Choose the real characters, their nearest neighbours by where the strokes lie, and others evenly spaced.

    By medians, not by drawn pictures, so that every version of the pen is asked for the same.
    """
    level1 = Charset.level1().characters
    table = StrokeTable.load()
    means = torch.zeros(len(level1), 24 * 24)
    for label, char in enumerate(level1):
        lines = table.medians(char)
        along = np.linspace(0, 1, 16)[:, None]
        dense = np.concatenate([a + (b - a) * along for line in lines for a, b in itertools.pairwise(line)])
        counts = np.histogram2d(dense[:, 1], dense[:, 0], 24, ((0, 1), (0, 1)))[0]
        means[label] = torch.from_numpy(np.minimum(counts, 8)).flatten()
    means = F.avg_pool2d(means.view(-1, 1, 24, 24), 3, 1, 1).flatten(1)
    means = F.normalize(means - means.mean(0))
    chosen = set(real)
    for char in real:
        near = (means @ means[level1.index(char)]).argsort(descending=True)
        chosen |= {level1[index] for index in near[: NEIGHBOURS + 1].tolist()}
    rest = [char for char in level1 if char not in chosen]
    left = max(0, count - len(chosen))
    return Charset([*chosen, *(rest[index * len(rest) // left] for index in range(left))])


def styles_without(names: list[str], *key: Any) -> WriterStyles:
    """Return styles that lack the habits of these names."""
    styles = WriterStyles(*key)
    for name in names:
        for attribute, value in HABITS[name].items():
            setattr(styles, attribute, torch.full_like(getattr(styles, attribute), value))
    return styles


def main() -> None:
    """Train, score, and print the figures and the worst characters."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=150_000, help="to learn from")
    parser.add_argument("--classes", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="a network of two layers instead of the compact one")
    parser.add_argument("--degrade", action="store_true", help="with degradations")
    parser.add_argument("--without", action="append", default=[], choices=HABITS, help="a habit; may be repeated")
    parser.add_argument("--font", type=Path, action="append", default=[], help="as hcr-train takes it; may be repeated")
    parser.add_argument("--share", type=float, default=generator.SHARE, help="of the writers who write a font's forms")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    truth, pictures = real_pictures(given.folder)
    charset = classes("".join(sorted(set(truth))), given.classes)
    generator.WriterStyles = partial(styles_without, given.without)  # type: ignore[misc, assignment]
    generator.SHARE = given.share
    pen = Generator(charset.characters, fonts=given.font)
    model: torch.nn.Module = Quick(len(charset)) if given.quick else Recognizer("compact", charset, SIZE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.02)
    draw_seconds, began, done, share = 0.0, time.monotonic(), 0, 0.0
    while share < 1:
        step = done // BATCH
        started = time.monotonic()
        random = torch.Generator().manual_seed(step)
        labels = torch.randint(len(charset), (BATCH,), generator=random)
        numbers = torch.arange(done, done + BATCH)
        images = pen.draw(labels, numbers, numbers * 0, seed=SEED, size=SIZE)
        if given.degrade:
            images = degrade(images, seed=SEED, step=step)
        draw_seconds += time.monotonic() - started
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1, done / 20_000, 0.01 + 1.2 * (1 - share))
        loss = F.cross_entropy(model.train()(images), labels, label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        done += BATCH
        share = done / given.pictures
        if step % 200 == 0:
            print(f"{done:8d} pictures, loss {loss.item():.3f}", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    model.eval()
    with torch.no_grad():
        top = torch.cat([model(batch).topk(5).indices for batch in pictures.split(256)])
    target = torch.tensor([charset.label(char) for char in truth])
    right = top[:, 0] == target
    print(f"{done} pictures in {seconds:.0f} s ({draw_seconds:.0f} s of drawing), {len(charset)} classes")
    print(
        f"top-1 {100 * right.float().mean():.2f} %, top-5 {100 * (top == target[:, None]).any(1).float().mean():.2f} %"
    )
    for char in sorted(set(truth), key=lambda char: float(right[target == charset.label(char)].float().mean()))[:24]:
        mine = target == charset.label(char)
        taken = Counter(charset[index] for index in top[mine & ~right, 0].tolist()).most_common(4)
        print(f"{char} {100 * right[mine].float().mean():.0f} %", " ".join(f"{other}{count}" for other, count in taken))


if __name__ == "__main__":
    main()
