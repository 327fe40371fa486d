from . import claims, comparison, evaluation, intervals, metrics, summary
from .comparison import Difference, compare
from .evaluation import Outcome, Score, evaluate, measure, outcomes, predict
from .intervals import interval, over_tasks
from .summary import difference

__all__ = [
    "Difference",
    "Outcome",
    "Score",
    "claims",
    "compare",
    "comparison",
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
