from . import (
    conll,
    crossfit,
    examples,
    fewshot,
    hub,
    jsonl,
    pools,
    schemes,
    sources,
    splits,
    suites,
    superglue,
    wordings,
)
from .conll import read_conll
from .examples import Card, Example, SpanExample, TaggedExample, Task
from .jsonl import check_jsonl, near_duplicates, read_jsonl
from .suites import list_cards, load_suite, load_task, sides, split, with_cards
from .wordings import Template, Verbalizer

__all__ = [
    "Card",
    "Example",
    "SpanExample",
    "TaggedExample",
    "Task",
    "Template",
    "Verbalizer",
    "check_jsonl",
    "conll",
    "crossfit",
    "examples",
    "fewshot",
    "hub",
    "jsonl",
    "list_cards",
    "load_suite",
    "load_task",
    "near_duplicates",
    "pools",
    "read_conll",
    "read_jsonl",
    "schemes",
    "sides",
    "sources",
    "split",
    "splits",
    "suites",
    "superglue",
    "with_cards",
    "wordings",
]
