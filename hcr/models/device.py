"""The device that a network computes on, chosen in one place for training, evaluation and prediction."""

from __future__ import annotations

from hcr.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")


def choose_device(requested: str) -> str:
    """Return "cpu" or "cuda" for one of DEVICES; "auto" is the GPU where there is one.

    Raises: UsageError for another name, and for "cuda" where torch finds no GPU.
    """
    if requested not in DEVICES:
        raise UsageError(f"--device {requested!r}: expected one of {', '.join(DEVICES)}")
    if requested == "cpu":
        return requested
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if requested == "cuda":
        raise UsageError("--device cuda: this machine has no CUDA device that torch can use; use --device cpu")
    return "cpu"
