"""Judging: a checkpoint and a split in, figures and files out."""

from hcr.evaluation.evaluate import Evaluation, evaluate, evaluate_checkpoint
from hcr.evaluation.metrics import Confusion, Predictions, Summary, confusions, summarise
from hcr.evaluation.report import write_report

__all__ = [
    "Confusion",
    "Evaluation",
    "Predictions",
    "Summary",
    "confusions",
    "evaluate",
    "evaluate_checkpoint",
    "summarise",
    "write_report",
]
