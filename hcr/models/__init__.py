"""Networks: a Recognizer turns uint8 pictures into logits, whatever backbone it carries.

What needs torch is imported when it is first asked for: a name can be checked without.
"""

from typing import TYPE_CHECKING

from hcr.lazy import lazy_attributes
from hcr.models.backbones import BACKBONES, require_arch

if TYPE_CHECKING:
    from hcr.models.recognizer import Recognizer
    from hcr.models.weights import load_recognizer, read_checkpoint, read_model

__all__ = ["BACKBONES", "Recognizer", "load_recognizer", "read_checkpoint", "read_model", "require_arch"]

__getattr__ = lazy_attributes(
    __name__,
    {
        "Recognizer": "hcr.models.recognizer",
        "load_recognizer": "hcr.models.weights",
        "read_checkpoint": "hcr.models.weights",
        "read_model": "hcr.models.weights",
    },
)
