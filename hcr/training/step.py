"""One training step: pictures in, weights moved; or left as they were where a number is not finite.

Every step looks whether loss and gradients are finite, so a GPU's queue of work runs empty once a step. The price is
paid because what is trained on nonsense is lost for longer. Distillation stands at the end: a trained network, and the
loss by which another learns its answers.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hcr.charset import Charset
from hcr.errors import UsageError
from hcr.feed.augment import augment
from hcr.feed.degrade import degrade
from hcr.feed.sampler import Batch
from hcr.models import load_recognizer
from hcr.models.released import weights_digest
from hcr.synth.pages import are_pages
from hcr.text import counted
from hcr.training.config import ResolvedConfig
from hcr.training.distributed import Processes
from hcr.training.state import TrainState

_MANTISSA = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Of distillation: both networks' logits are divided by it, so that unlikely characters count; gradients shrink by its
# square.
TEMPERATURE = 2.0
# Share of the teacher's answers in the loss; the labels have the rest.
SHARE = 0.9
# The same where pages are drawn: what the teacher is shown has no neighbours, lines or shade, and labels weigh more.
SHARE_OF_PAGES = 0.7


class Stepper:
    """Takes the steps of `state`: by labels, and by a teacher's answers where there is one."""

    def __init__(
        self,
        config: ResolvedConfig,
        state: TrainState,
        processes: Processes,
        teacher: Teacher | None,
        *,
        compiled: bool,
    ) -> None:
        self.config, self.state, self.processes = config, state, processes
        self.parameters = [parameter for parameter in state.model.parameters() if parameter.requires_grad]
        # Batch norm moves its running averages in the forward pass, before the step is known to be finite.
        self._buffers = list(state.model.buffers())
        self._kept = [buffer.clone() for buffer in self._buffers]
        self._network: nn.Module = state.model
        if processes.world > 1:
            self._network = DistributedDataParallel(state.model)
        self._forward: Any = torch.compile(self._network) if compiled else self._network
        self._teacher: Any = torch.compile(teacher) if compiled and teacher is not None else teacher

    def pictures(self, batch: Batch) -> Tensor:
        """Return the pictures of this step as the network sees them: uint8[B, 1, S, S], augmented where configured."""
        if not self.config.augmentation:
            return batch.images
        step = self.state.step
        images = augment(batch.images, self._seed(), step)
        if not self.config.draw:
            return images
        # Degraded last, as by a scanner: bent afterwards, cut edges would move into the picture and ruled lines would
        # slant. It keeps 32 bits of the seed, so the process's number has to be among them.
        seed = self.config.seed + self.processes.rank * 1_000_003
        if not self.config.pages:
            return degrade(images, seed=seed, step=step)
        # A camera has already degraded what was cut out of a page.
        clean = (~are_pages(batch.index, self.config.seed, self.config.pages)).nonzero().squeeze(1).to(images.device)
        images[clean] = degrade(images[clean], seed=seed, step=step)
        return images

    def take(self, batch: Batch, rate: float, *flags: bool) -> list[bool]:
        """Take one step at the learning rate `rate`, and count it.

        Return first whether it was left out, in all processes, because loss or gradients of one were not finite; then
        for each of `flags` whether one of the processes has it set.
        """
        state, config = self.state, self.config
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        images = self.pictures(batch)
        # Dropout, like order and augmentation, is a function of seed and step: no random state has to be kept.
        torch.manual_seed((self._seed() * 1_000_003 + state.step) % (1 << 63))
        _copy(self._buffers, self._kept)
        state.optimizer.zero_grad(set_to_none=True)
        shown = images if batch.clean is None else batch.clean
        loss, correct = self._gradients(images, batch.labels, shown)
        state.scaler.unscale_(state.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        finite = torch.isfinite(loss)
        # A scaled gradient may well overflow (fp16): the scaler then leaves the step out by itself, and scales less.
        if not state.scaler.is_enabled() or state.scaler.get_scale() <= 1:
            finite = finite & torch.isfinite(norm)
        bad, *agreed = self.processes.any_of(~finite, *flags)
        if bad:
            _copy(self._kept, self._buffers)
        else:
            if config.clip:
                nn.utils.clip_grads_with_norm_(self.parameters, config.clip, norm)
            state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1
        if not bad:
            state.average(config.ema_decay)
            state.tally.loss = state.tally.loss + loss
            state.tally.correct = state.tally.correct + correct
            state.tally.samples += len(images)
        return [bad, *agreed]

    def _gradients(self, images: Tensor, labels: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients of the mean loss; return the sum of losses and the number of correct answers.

        shown: the pictures that the teacher answers.
        """
        config, scaler, count = self.config, self.state.scaler, len(labels)
        parts = min(config.accumulate, count)
        loss, correct = [], []
        split = (each.tensor_split(parts) for each in (images, labels, shown))
        for part, (pictures, targets, clean) in enumerate(zip(*split, strict=True)):
            # Gradients are exchanged once a step, with the last part.
            waits = isinstance(self._network, DistributedDataParallel) and part < parts - 1
            with self._network.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with self.autocast():
                    logits = self._forward(pictures)
                    total = F.cross_entropy(logits, targets, label_smoothing=config.label_smoothing, reduction="sum")
                    if self._teacher is not None:
                        share = SHARE_OF_PAGES if config.pages else SHARE
                        total = distilled(total, logits, self._teacher(clean), share)
                scaler.scale(total / count).backward()
            loss.append(total.detach())
            correct.append((logits.detach().argmax(1) == targets).sum())
        return torch.stack(loss).sum(), torch.stack(correct).sum()

    def autocast(self) -> torch.autocast:
        """Return the context in which the network computes at the configured precision."""
        dtype = _MANTISSA.get(self.config.precision)
        return torch.autocast(self.processes.device, dtype or torch.bfloat16, enabled=dtype is not None)

    def _seed(self) -> int:
        """Return the seed of this process's random numbers: each process draws for its own pictures."""
        return self.config.seed + (self.processes.rank << 32)


def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    """Copy tensors; a network without batch norm has none, and torch refuses an empty list."""
    if sources:
        torch._foreach_copy_(targets, sources)


class Teacher(nn.Module):
    """A trained network whose answers a run learns: the averaged weights of a checkpoint, or released ones.

    Its scores say what a label cannot: which other characters a picture looks like, and how much. The run neither moves
    nor saves it. charset, size: the run's. The teacher may know more characters, and in another order.
    Source: Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network".
    Raises: UsageError for pictures of another size, and where it lacks characters; what `load_recognizer` raises.
    """

    labels: Tensor

    def __init__(self, path: Path, charset: Charset, size: int, device: str) -> None:
        super().__init__()
        model = load_recognizer(path, device)
        if model.size != size:
            raise UsageError(f"--teacher {path}: reads pictures of {model.size} px, expected {size}; choose another")
        if lacking := [char for char in charset.characters if char not in model.charset]:
            raise UsageError(
                f"--teacher {path}: lacks {len(lacking):,} of the {counted(len(charset), 'character')}, first "
                f"{''.join(lacking[:8])!r}; choose one that knows them all"
            )
        self.path, self.digest = path, weights_digest(model.state_dict())
        self.model = model.to(memory_format=torch.channels_last)
        self.register_buffer("labels", torch.from_numpy(charset.labels_in(model.charset)).to(device))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits float32[B, C], in the order of the run's labels, for images uint8[B, 1, S, S]; no gradients."""
        with torch.no_grad():
            logits: Tensor = self.model(images)
            return logits.index_select(1, self.labels)


def distilled(loss: Tensor, logits: Tensor, answers: Tensor, share: float = SHARE) -> Tensor:
    """Return the mixture of the `loss` by labels and the divergence of `logits` from a teacher's `answers`.

    All are sums over the pictures. logits, answers: float32[B, C], whatever the precision of the networks.
    share: of the answers, 0-1.
    """
    learnt, taught = (F.log_softmax(scores / TEMPERATURE, 1) for scores in (logits, answers))
    divergence = F.kl_div(learnt, taught, reduction="sum", log_target=True)
    return (1 - share) * loss + share * TEMPERATURE**2 * divergence
