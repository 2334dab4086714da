"""Networks: a Recognizer turns uint8 pictures into logits, whatever backbone it carries."""

from hcr.models.recognizer import BACKBONES, Recognizer, require_arch
from hcr.models.weights import load_recognizer, read_checkpoint

__all__ = ["BACKBONES", "Recognizer", "load_recognizer", "read_checkpoint", "require_arch"]
