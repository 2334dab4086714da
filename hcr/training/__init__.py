"""Training: a config and a pack in, a run folder with checkpoints out."""

from hcr.training.config import Execution, TrainConfig
from hcr.training.observer import Observer, StepReport
from hcr.training.trainer import TrainSummary, train

__all__ = ["Execution", "Observer", "StepReport", "TrainConfig", "TrainSummary", "train"]
