"""Inference: a picture in, a character out."""

from hcr.inference.predictor import Predictor, load

__all__ = ["Predictor", "load"]
