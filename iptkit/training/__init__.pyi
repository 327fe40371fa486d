from . import adam, runs, state, trainer
from .runs import Fit, FitConfig, Run
from .trainer import dev_scores, fit

__all__ = [
    "Fit",
    "FitConfig",
    "Run",
    "adam",
    "dev_scores",
    "fit",
    "runs",
    "state",
    "trainer",
]
