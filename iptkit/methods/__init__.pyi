from . import (
    adapters,
    all_weights,
    baselines,
    fine_tuning,
    heads,
    p_tuning,
    p_tuning_v2,
    prompt_tuning,
    shares,
    subspace,
    tuned_encoder,
    word_search,
    words,
)
from .fine_tuning import fine_tune
from .heads import SharedPrompt, WithHead
from .p_tuning import EncodedPrompt
from .p_tuning_v2 import DeepPrompt
from .prompt_tuning import FixedPrompt, SoftPrompt, from_normal, from_words
from .subspace import AutoEncoder, IntrinsicPrompt, SubspaceConfig

__all__ = [
    "AutoEncoder",
    "DeepPrompt",
    "EncodedPrompt",
    "FixedPrompt",
    "IntrinsicPrompt",
    "SharedPrompt",
    "SoftPrompt",
    "SubspaceConfig",
    "WithHead",
    "adapters",
    "all_weights",
    "baselines",
    "fine_tune",
    "fine_tuning",
    "from_normal",
    "from_words",
    "heads",
    "p_tuning",
    "p_tuning_v2",
    "prompt_tuning",
    "shares",
    "subspace",
    "tuned_encoder",
    "word_search",
    "words",
]
