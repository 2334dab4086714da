"""Copy the next batch to the GPU while it works on this one.

On a stream of its own, because copies and kernels of one stream wait for each other. It costs two batches of device
memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import torch

from hcr.feed.batch import Batch


def prefetch(batches: Iterable[Batch], device: str) -> Iterator[Batch]:
    """Give `batches`, in pinned memory, with images and labels on the CUDA `device`; index stays where it is."""
    stream = torch.cuda.Stream(device)
    # Host batches are held until they are copied: their memory may be a slot that is written again when let go.
    copying: deque[tuple[Batch, torch.cuda.Event]] = deque()
    ready: deque[tuple[Batch, torch.cuda.Event]] = deque()
    try:
        for batch in batches:
            with torch.cuda.stream(stream):
                images = batch.images.to(device, non_blocking=True)
                labels = batch.labels.to(device, non_blocking=True)
                done = stream.record_event()
            copying.append((batch, done))
            while copying[0][1].query() and len(copying) > 1:
                copying.popleft()
            ready.append((batch._replace(images=images, labels=labels), done))
            if len(ready) > 1:
                yield _handed_over(*ready.popleft())
        while ready:
            yield _handed_over(*ready.popleft())
    finally:
        stream.synchronize()


def _handed_over(batch: Batch, done: torch.cuda.Event) -> Batch:
    """Let the consumer's stream wait for the copy, and the allocator know that this stream uses it."""
    current = torch.cuda.current_stream(batch.images.device)
    current.wait_event(done)
    batch.images.record_stream(current)
    batch.labels.record_stream(current)
    return batch
