from . import claims, evaluation, intervals, metrics, summary, tables
from .evaluation import evaluate, predict
from .intervals import interval, over_tasks
from .summary import difference

__all__ = [
    "claims",
    "difference",
    "evaluate",
    "evaluation",
    "interval",
    "intervals",
    "metrics",
    "over_tasks",
    "predict",
    "summary",
    "tables",
]
