from . import claims, intervals, metrics, summary, tables
from .evaluate import evaluate, predict
from .intervals import interval, over_tasks
from .summary import difference

__all__ = [
    "claims",
    "difference",
    "evaluate",
    "interval",
    "intervals",
    "metrics",
    "over_tasks",
    "predict",
    "summary",
    "tables",
]
