from . import claims, evaluation, intervals, metrics, summary, tables
from .evaluation import Score, evaluate, measure, predict
from .intervals import interval, over_tasks
from .summary import difference

__all__ = [
    "Score",
    "claims",
    "difference",
    "evaluate",
    "evaluation",
    "interval",
    "intervals",
    "measure",
    "metrics",
    "over_tasks",
    "predict",
    "summary",
    "tables",
]
