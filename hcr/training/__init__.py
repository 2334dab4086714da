"""Training: settings and a pack in, a run folder with checkpoints out.

Settings and observers come without torch; `train` is imported when it is first asked for.
"""

from typing import TYPE_CHECKING

from hcr.lazy import lazy_attributes
from hcr.records import MetricsRow, TimingsRow
from hcr.training.config import Execution, TrainConfig
from hcr.training.observer import Observer, StepReport

if TYPE_CHECKING:
    from hcr.training.trainer import TrainSummary, train

__all__ = [
    "Execution",
    "MetricsRow",
    "Observer",
    "StepReport",
    "TimingsRow",
    "TrainConfig",
    "TrainSummary",
    "train",
]

__getattr__ = lazy_attributes(__name__, {"TrainSummary": "hcr.training.trainer", "train": "hcr.training.trainer"})
