"""Networks: a Recognizer turns uint8 pictures into logits, whatever backbone it carries.

What needs torch is imported when it is first asked for: a name can be checked without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hcr.models.backbones import BACKBONES, require_arch

if TYPE_CHECKING:
    from hcr.models.recognizer import Recognizer
    from hcr.models.weights import load_recognizer, read_checkpoint, read_model

__all__ = ["BACKBONES", "Recognizer", "load_recognizer", "read_checkpoint", "read_model", "require_arch"]

_LATE = {"Recognizer": "recognizer", "load_recognizer": "weights", "read_checkpoint": "weights",
         "read_model": "weights"}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(f"hcr.models.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
