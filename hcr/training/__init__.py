"""Training: a config and a pack in, a run folder with checkpoints out."""

from hcr.training.config import TrainConfig
from hcr.training.loop import Execution, Observer, TrainSummary, train

__all__ = ["Execution", "Observer", "TrainConfig", "TrainSummary", "train"]
