"""What form the compact network should have: small networks learn drawn characters alone and name real ones.

    python benchmarks/lab/compact.py FOLDER [--pictures 163840] [--classes 1000] [--networks NAME ...]

FOLDER holds real handwriting as .gnt files. Every network sees the same pictures at 48 px, each once, degraded, in the
same order; the classes are as in pen_proxy.py. Size is that with 3,755 classes in half precision, time that of one
picture on one core. Speeds compare within one run only.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import command_line, machine, say, table
from pen_proxy import SEED, SIZE, classes, real_pictures

from hcr.feed.degrade import degrade
from hcr.models.compact import DROPOUTS, WIDTHS, Compact
from hcr.synth import Generator

BATCH, LR, WARMUP = 256, 3e-3, 0.1
LEVEL1 = 3755


class Residual(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(convolution(width, width), nn.ReLU(inplace=True), convolution(width, width))
        nn.init.zeros_(self.inner[2][1].weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape."""
        return F.relu(maps + self.inner(maps))


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Make a 3×3 convolution with batch norm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))


def network(count: int, widths: Sequence[int], dropouts: Sequence[float], head: float, *, residual: bool) -> nn.Module:
    """Make a network of the compact one's kind. dropouts: before the second convolution of each width but the first."""
    compact = Compact(count)
    layers: list[nn.Module] = [compact.evened, compact.features[0]]
    inputs = 12
    for number, width in enumerate(widths):
        layers += [nn.MaxPool2d(2)] if number else []
        layers += [convolution(inputs, width), nn.ReLU(inplace=True)]
        if residual and number:
            layers.append(Residual(width))
        else:
            layers += [nn.Dropout2d(dropouts[number - 1] if number else 0.0)]
            layers += [convolution(width, width), nn.ReLU(inplace=True)]
        inputs = width
    pool = type(compact.head[0])(inputs)
    return nn.Sequential(*layers, pool, nn.Dropout(head), nn.Linear(inputs, count)).to(
        memory_format=torch.channels_last
    )


NONE = (0.0, 0.0, 0.0)
NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "with its dropout": lambda count: network(count, WIDTHS, DROPOUTS, 0.5, residual=False),
    "without": lambda count: network(count, WIDTHS, NONE, 0.0, residual=False),
    "without, wider (32-96-224-448)": lambda count: network(count, (32, 96, 224, 448), NONE, 0.0, residual=False),
    "without, three convolutions a width, residual": lambda count: network(count, WIDTHS, NONE, 0.0, residual=True),
}


def ink_of(images: Tensor) -> Tensor:
    """Scale as `Recognizer` does."""
    ink = (255 - images).float() / 255
    return ink / ink.amax((1, 2, 3), keepdim=True).clamp(min=0.1)


def learnt(model: nn.Module, images: Tensor, labels: Tensor, name: str) -> float:
    """Train on all pictures once, in their order, in bfloat16; give pictures a second, by the median step."""
    steps = len(images) // BATCH
    groups = [
        {"params": [p for p in model.parameters() if (p.ndim > 1) is large], "weight_decay": 0.05 * large}
        for large in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR)
    seconds = []
    for step in range(steps):
        share = step / steps
        late = max(0.0, share - WARMUP) / (1 - WARMUP)
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, (share + 1 / steps) / WARMUP) * 0.5 * (1 + math.cos(math.pi * late))
        began = time.perf_counter()
        batch = slice(step * BATCH, (step + 1) * BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ink_of(images[batch]))
        loss = F.cross_entropy(logits.float(), labels[batch], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - began)
        if step % 200 == 0:
            say(f"{name}: step {step} of {steps}, loss {loss.item():.3f}")
    return BATCH / statistics.median(seconds)


def main() -> None:
    """Draw, train each network, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=640 * BATCH, help="to learn from")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    given = parser.parse_args()
    start = machine()
    truth, real = real_pictures(given.folder)
    charset = classes("".join(sorted(set(truth))), given.classes)
    answers = torch.tensor([charset.label(char) for char in truth])
    pen = Generator(charset.characters)
    count = given.pictures // BATCH * BATCH
    labels = torch.randint(len(charset), (count,), generator=torch.Generator().manual_seed(SEED))
    images = torch.empty(count, 1, SIZE, SIZE, dtype=torch.uint8)
    for begin in range(0, count, BATCH):
        numbers = torch.arange(begin, begin + BATCH)
        drawn = pen.draw(labels[begin : begin + BATCH], numbers, numbers * 0, seed=SEED, size=SIZE)
        images[begin : begin + BATCH] = degrade(drawn, seed=SEED, step=begin // BATCH)

    rows = []
    for name in given.networks:
        torch.manual_seed(SEED)
        model = NETWORKS[name](len(charset))
        speed = learnt(model, images, labels, name)
        model.eval()
        seconds = []
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with torch.inference_mode():
            for place in range(60):
                began = time.perf_counter()
                model(ink_of(real[place : place + 1]))
                seconds.append(time.perf_counter() - began)
            torch.set_num_threads(threads)
            top = torch.cat([model(ink_of(part)).topk(5, 1).indices for part in real.split(BATCH)])
        right = top == answers[:, None]
        large = sum(p.numel() for p in model.parameters()) + (LEVEL1 - len(charset)) * (model[-1].in_features + 1)
        figures = f"{right[:, 0].float().mean():.2%}", f"{right.any(1).float().mean():.2%}"
        milliseconds = f"{1000 * statistics.median(seconds):.1f}"
        rows.append([name, *figures, f"{2e-6 * large:.1f} MB", milliseconds, f"{speed:,.0f}"])
    print(f"`{command_line()}`: {len(charset)} characters, {len(answers):,} real pictures; {start}.\n")
    print(table(["network", "top-1", "top-5", "at 3,755 classes", "ms a picture", "learns a second"], rows))


if __name__ == "__main__":
    main()
