"""Judging: a checkpoint and a split in, figures and files out.

What needs torch is imported when it is first asked for: figures of given predictions can do without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hcr.evaluation.compare import Comparison, compare
from hcr.evaluation.elsewhere import evaluate_elsewhere
from hcr.evaluation.findings import Evaluation, Findings, compare_with, examine
from hcr.evaluation.metrics import Confusion, Predictions, Summary, confusions, summarise
from hcr.evaluation.report import write_report

if TYPE_CHECKING:
    from hcr.evaluation.inference import Judging, evaluate, evaluate_checkpoint, prepare
    from hcr.evaluation.robustness import judge_conditions

__all__ = [
    "Comparison",
    "Confusion",
    "Evaluation",
    "Findings",
    "Judging",
    "Predictions",
    "Summary",
    "compare",
    "compare_with",
    "confusions",
    "evaluate",
    "evaluate_checkpoint",
    "evaluate_elsewhere",
    "examine",
    "judge_conditions",
    "prepare",
    "summarise",
    "write_report",
]

_LATE = {"Judging": "inference", "evaluate": "inference", "evaluate_checkpoint": "inference", "prepare": "inference",
         "judge_conditions": "robustness"}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(f"hcr.evaluation.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
