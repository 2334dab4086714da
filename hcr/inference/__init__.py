"""Use of a trained recognizer: pictures in, characters out."""

from hcr.inference.predictor import Predictor, Reading, find_pictures, read_pictures

__all__ = ["Predictor", "Reading", "find_pictures", "read_pictures"]
