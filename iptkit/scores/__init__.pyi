from . import claims, evaluation, intervals, metrics, summary
from .evaluation import Outcome, Score, evaluate, measure, outcomes, predict
from .intervals import interval, over_tasks
from .summary import difference

__all__ = [
    "Outcome",
    "Score",
    "claims",
    "difference",
    "evaluate",
    "evaluation",
    "interval",
    "intervals",
    "measure",
    "metrics",
    "outcomes",
    "over_tasks",
    "predict",
    "summary",
]
