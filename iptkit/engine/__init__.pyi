from . import (
    adapter_hooks,
    batches,
    calls,
    compatibility,
    decoding,
    exact,
    fast,
    forward,
    head_engine,
    head_rows,
    interface,
    layouts,
    left_memory,
    limits,
    mask_engine,
    prompt,
    prompt_files,
    rotary,
    rows,
    seq2seq,
    sites,
    text_cache,
    word_rows,
)
from .compatibility import made_for
from .engine import Engine
from .head_engine import HeadEngine
from .interface import PromptEngine
from .layouts import LAYOUTS, Layout
from .limits import truncate
from .mask_engine import MaskEngine
from .prompt import Prompt, PromptSource
from .sites import choose, find_sites

__all__ = [
    "Engine",
    "HeadEngine",
    "LAYOUTS",
    "Layout",
    "MaskEngine",
    "Prompt",
    "PromptEngine",
    "PromptSource",
    "adapter_hooks",
    "batches",
    "calls",
    "choose",
    "compatibility",
    "decoding",
    "exact",
    "fast",
    "find_sites",
    "forward",
    "head_engine",
    "head_rows",
    "interface",
    "layouts",
    "left_memory",
    "limits",
    "made_for",
    "mask_engine",
    "prompt",
    "prompt_files",
    "rotary",
    "rows",
    "seq2seq",
    "sites",
    "text_cache",
    "truncate",
    "word_rows",
]
