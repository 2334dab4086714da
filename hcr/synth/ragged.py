"""Flat tensors whose length the data decides, without waiting for a device to count.

On a CPU they are as long as they must be. On a GPU they are as long as they could be, since asking for a length stops
the host until everything before is done. What is left over repeats the last element and is marked as not valid. Whoever
adds elements up has to spread what is left over (`spread`): a million additions to one place come one after the other.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _counts_at_once(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def kept(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return where bool[N] is true, int64[M], and which of these M are valid, bool[M]; at least one is true."""
    if _counts_at_once(mask):
        index = mask.nonzero().squeeze(1)
        return index, torch.ones_like(index, dtype=torch.bool)
    index = torch.nonzero_static(mask, size=len(mask), fill_value=len(mask) - 1).squeeze(1)
    total = mask.sum()
    valid = torch.arange(len(mask), device=mask.device) < total
    return torch.where(valid, index, index.index_select(0, (total - 1).view(1))), valid


def spread(place: Tensor, valid: Tensor, room: int) -> Tensor:
    """Send what is not valid by turns to all the places below `room`, int64[N]: there it must change nothing."""
    if _counts_at_once(place):
        return place
    turn = torch.arange(len(place), dtype=place.dtype, device=place.device) % room
    return torch.where(valid, place, turn)


def spare(values: Tensor, valid: Tensor, nothing: float) -> Tensor:
    """Put `nothing` where float32[N, K] is not valid."""
    return values if _counts_at_once(values) else values.masked_fill(~valid[:, None], nothing)


def owners(repeats: Tensor, room: int) -> tuple[Tensor, Tensor, Tensor]:
    """Repeat each place of int32[N] as often as it says: owner int64[M], number within it int32[M], valid bool[M].

    room: how many there are at most where they cannot be counted; more would be lost.
    """
    ends = repeats.cumsum(0)
    if _counts_at_once(repeats):
        owner = torch.repeat_interleave(repeats).long()
        place = torch.arange(len(owner), device=repeats.device)
    else:
        place = torch.arange(room, device=repeats.device)
        owner = torch.searchsorted(ends, place, right=True).clamp_(max=len(ends) - 1)
    within = place.int() - (ends - repeats).int().index_select(0, owner)
    return owner, within, place < ends[-1]
