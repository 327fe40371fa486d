from . import course, engine, methods, models, prompts, scores, storage, studies, tasks, training
from .engine.engine import Engine
from .engine.head_engine import HeadEngine
from .engine.mask_engine import MaskEngine
from .engine.prompt import Prompt, PromptSource
from .prompts.saved import load_prompt, open_prompt
from .scores.evaluation import evaluate
from .studies.study import Study
from .training.runs import FitConfig, Run
from .training.trainer import fit

__version__: str
STARTED: float

__all__ = [
    "Engine",
    "FitConfig",
    "HeadEngine",
    "MaskEngine",
    "Prompt",
    "PromptSource",
    "Run",
    "Study",
    "course",
    "engine",
    "evaluate",
    "fit",
    "load_prompt",
    "methods",
    "models",
    "open_prompt",
    "prompts",
    "scores",
    "storage",
    "studies",
    "tasks",
    "training",
]
