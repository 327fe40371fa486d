from . import asking, interchange, prompt_runs, saved, tuning
from .asking import ask
from .interchange import from_peft, to_peft
from .saved import SavedPrompt, from_hub, load_prompt, open_prompt, push_to_hub, read_about
from .tuning import TuneConfig, tune

__all__ = [
    "SavedPrompt",
    "TuneConfig",
    "ask",
    "asking",
    "from_hub",
    "from_peft",
    "interchange",
    "load_prompt",
    "open_prompt",
    "prompt_runs",
    "push_to_hub",
    "read_about",
    "saved",
    "to_peft",
    "tune",
    "tuning",
]
