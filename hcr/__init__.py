"""hcr: handwritten Chinese character recognition, from CASIA-HWDB archives to a measured recogniser.

    import hcr

    model = hcr.load()                        # the released weights
    model.read("photo.jpg")                   # [("永", 0.97), …]

Everything here is imported when it is first asked for, so that `import hcr` itself takes no time.
"""

from typing import TYPE_CHECKING

from hcr.lazy import lazy_attributes

if TYPE_CHECKING:
    from hcr.api import evaluate, open_pack, train
    from hcr.charset import Charset
    from hcr.errors import DataError, HcrError, Stopped, UsageError
    from hcr.evaluation.analysis import Evaluation
    from hcr.feed.dataset import PackDataset
    from hcr.inference.predictor import Predictor, load
    from hcr.training.config import Execution, TrainConfig
    from hcr.training.observer import Observer, StepReport
    from hcr.training.trainer import TrainSummary

__version__ = "0.1.0"

__all__ = [
    "Charset",
    "DataError",
    "Evaluation",
    "Execution",
    "HcrError",
    "Observer",
    "PackDataset",
    "Predictor",
    "StepReport",
    "Stopped",
    "TrainConfig",
    "TrainSummary",
    "UsageError",
    "evaluate",
    "load",
    "open_pack",
    "train",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "Charset": "hcr.charset",
        "DataError": "hcr.errors",
        "Evaluation": "hcr.evaluation.analysis",
        "Execution": "hcr.training.config",
        "HcrError": "hcr.errors",
        "Observer": "hcr.training.observer",
        "PackDataset": "hcr.feed.dataset",
        "Predictor": "hcr.inference.predictor",
        "StepReport": "hcr.training.observer",
        "Stopped": "hcr.errors",
        "TrainConfig": "hcr.training.config",
        "TrainSummary": "hcr.training.trainer",
        "UsageError": "hcr.errors",
        "evaluate": "hcr.api",
        "load": "hcr.inference.predictor",
        "open_pack": "hcr.api",
        "train": "hcr.api",
    },
)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
