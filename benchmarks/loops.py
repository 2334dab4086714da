"""Training loops that people start from, written out for comparison: each gives one step after another, for ever.

All but the tutorial's read the project's pack, a sample at a time as their datasets do, and train the project's network
from the same first weights; what differs is how the pictures come, and how often the loop waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from readers import TutorialDataset
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hcr.charset import Charset
from hcr.feed.mmap import pictures_of
from hcr.models import Recognizer

MEAN, STD = 0.1, 0.25  # of ink on handwriting, about; no figure here depends on what a loop learns


class _Samples(Dataset[Any]):
    """A sample of the pack at a time: uint8[1, S, S], or float32 normalised on the CPU as torchvision's presets do."""

    def __init__(self, path: Path, normalise: bool) -> None:
        self.path, self.normalise = path, normalise

    def __len__(self) -> int:
        return len(pictures_of(self.path).reader)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        import numpy as np

        pictures = pictures_of(self.path)
        side = pictures.reader.size
        image = torch.empty((1, 1, side, side), dtype=torch.uint8)
        pictures.read(np.array([index]), image)
        label = int(pictures.reader.labels[index])
        return ((image[0].float() / 255 - MEAN) / STD if self.normalise else image[0]), label


def _epochs(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def _loader(path: Path, batch: int, workers: int, normalise: bool) -> Iterator[Any]:
    loader = DataLoader(
        _Samples(path, normalise),
        batch,
        shuffle=True,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        drop_last=True,
        persistent_workers=workers > 0,
    )
    return _epochs(loader)


def reference(path: Path, charset: Charset, arch: str, batch: int, workers: int, device: str) -> Iterator[int]:
    """torchvision's reference script with --amp: blocking copies, accuracy and loss fetched after every step."""
    model = Recognizer(arch, charset, 64).backbone.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    cuda = device == "cuda"
    scaler = torch.amp.GradScaler(device, enabled=cuda)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    for image, target in _loader(path, batch, workers, normalise=True):
        image, target = image.to(device), target.to(device)
        with torch.autocast(device, torch.float16 if cuda else torch.bfloat16):
            output = model(image)
            loss = criterion(output, target)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        within = output.detach().topk(min(5, output.shape[1])).indices == target[:, None]
        for figure in (loss, within[:, 0].float().mean(), within.float().sum(1).mean()):
            figure.item()
        yield len(target)


def timm_style(path: Path, charset: Charset, arch: str, batch: int, workers: int, device: str) -> Iterator[int]:
    """As timm's train script with --amp --channels-last --model-ema: uint8 batches copied and normalised ahead on a
    side stream, figures fetched every 50 steps."""
    model = Recognizer(arch, charset, 64).backbone.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    side = torch.cuda.Stream() if device == "cuda" else None
    loader = _loader(path, batch, workers, normalise=False)

    def fetch() -> tuple[Tensor, Tensor]:
        images, labels = next(loader)
        images = images.to(device, non_blocking=True).to(memory_format=torch.channels_last)
        return images.float().sub_(MEAN * 255).div_(STD * 255), labels.to(device, non_blocking=True)

    step = 0
    with torch.cuda.stream(side):
        following = fetch()
    while True:
        if side is not None:
            torch.cuda.current_stream().wait_stream(side)
        images, labels = following
        if side is not None:
            for tensor in following:
                tensor.record_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            following = fetch()
        with torch.autocast(device, torch.bfloat16):
            loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = model.state_dict()
        floats = [name for name, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([average[name] for name in floats], [state[name] for name in floats], 0.001)
        if step % 50 == 0:
            loss.item()
        step += 1
        yield len(labels)


def tutorial(pictures: Path, batch: int, device: str) -> Iterator[int]:
    """PNG files opened in this process, made RGB, squashed to 64 px; torchvision's network in float32, Adam at 1e-4."""
    from torchvision.models import efficientnet_v2_s

    dataset = TutorialDataset(pictures, side=64)
    # Labels here are code points; the network wants places.
    labels = {label: place for place, label in enumerate(sorted({label for _, label in dataset.samples}))}
    model = efficientnet_v2_s(num_classes=len(labels)).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    criterion = nn.CrossEntropyLoss()
    for images, codes in _epochs(DataLoader(dataset, batch, shuffle=True, drop_last=True)):
        target = torch.tensor([labels[str(code)] for code in codes.tolist()], device=device)
        output = model(images.to(device))
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        yield len(target)
