from . import (
    adapters,
    all_weights,
    asking,
    baselines,
    fine_tuning,
    heads,
    interchange,
    p_tuning,
    p_tuning_v2,
    prompt_runs,
    prompt_tuning,
    saved_prompts,
    shares,
    subspace,
    tuning,
    word_search,
    words,
)
from .asking import ask
from .fine_tuning import fine_tune
from .heads import SharedPrompt, WithHead
from .p_tuning import EncodedPrompt
from .p_tuning_v2 import DeepPrompt
from .prompt_tuning import FixedPrompt, SoftPrompt, from_normal, from_words
from .saved_prompts import SavedPrompt, from_hub, load_prompt, open_prompt, push_to_hub, read_about
from .subspace import AutoEncoder, IntrinsicPrompt, SubspaceConfig
from .tuning import TuneConfig, tune

__all__ = [
    "AutoEncoder",
    "DeepPrompt",
    "EncodedPrompt",
    "FixedPrompt",
    "IntrinsicPrompt",
    "SavedPrompt",
    "SharedPrompt",
    "SoftPrompt",
    "SubspaceConfig",
    "TuneConfig",
    "WithHead",
    "adapters",
    "all_weights",
    "ask",
    "asking",
    "baselines",
    "fine_tune",
    "fine_tuning",
    "from_hub",
    "from_normal",
    "from_words",
    "heads",
    "interchange",
    "load_prompt",
    "open_prompt",
    "p_tuning",
    "p_tuning_v2",
    "prompt_runs",
    "prompt_tuning",
    "push_to_hub",
    "read_about",
    "saved_prompts",
    "shares",
    "subspace",
    "tune",
    "tuning",
    "word_search",
    "words",
]
