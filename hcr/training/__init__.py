"""Training: a config and a pack in, a run folder with checkpoints out."""

from hcr.training.config import Execution, TrainConfig
from hcr.training.loop import TrainSummary, train
from hcr.training.observer import Observer

__all__ = ["Execution", "Observer", "TrainConfig", "TrainSummary", "train"]
