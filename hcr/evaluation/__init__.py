"""Evaluation: weights and a split in, figures and files out.

What needs torch is imported when it is first asked for: figures of given predictions can do without.
"""

from typing import TYPE_CHECKING

from hcr.evaluation.analysis import Analysis, Evaluation, analyse, compare_with
from hcr.evaluation.compare import Comparison, compare
from hcr.evaluation.external import evaluate_external
from hcr.evaluation.files import write_report
from hcr.evaluation.metrics import Confusion, Predictions, Summary, confusions, summarise
from hcr.lazy import lazy_attributes

if TYPE_CHECKING:
    from hcr.evaluation.evaluator import Evaluator, evaluate_checkpoint, make_evaluator, predict_all
    from hcr.evaluation.robustness import evaluate_conditions

__all__ = [
    "Analysis",
    "Comparison",
    "Confusion",
    "Evaluation",
    "Evaluator",
    "Predictions",
    "Summary",
    "analyse",
    "compare",
    "compare_with",
    "confusions",
    "evaluate_checkpoint",
    "evaluate_conditions",
    "evaluate_external",
    "make_evaluator",
    "predict_all",
    "summarise",
    "write_report",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "Evaluator": "hcr.evaluation.evaluator",
        "evaluate_checkpoint": "hcr.evaluation.evaluator",
        "make_evaluator": "hcr.evaluation.evaluator",
        "predict_all": "hcr.evaluation.evaluator",
        "evaluate_conditions": "hcr.evaluation.robustness",
    },
)
