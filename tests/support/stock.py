"""What the engine is compared with: stock transformers forwards, one row and one answer at a time."""

import contextlib
import dataclasses
import functools

import torch

from iptkit.engine import layouts
from iptkit.models.backbone import load
from iptkit.tasks.examples import Example

LAYOUTS = layouts.LAYOUTS
MIXED_EXAMPLES = (  # texts, answers and options of different lengths; free answers and choices
    Example("What is six plus four?", ("ten",)),
    Example("I had a sad trip.\nChoices: negative, positive", ("negative",), ("negative", "positive")),
    Example("Put it in the past: Leo sees a fox.", ("Leo saw a fox.",)),
    Example(
        "Ben sees the duck.\nWhat is it about?\nChoices: the big animal, food, one more tool",
        ("food",),
        ("the big animal", "food", "one more tool"),
    ),
)


@functools.cache
def backbone(name, dtype):
    """Load each model once per test session: nothing may change it."""
    return load(name, dtype=dtype)


@functools.cache
def another(name, dtype):
    """A model of the same kind, width and layers with other weights."""
    made = dataclasses.replace(load(name, dtype=dtype), name=f"another-{name}")
    with torch.no_grad():
        for p in made.model.parameters():
            p.mul_(1.25)
    return made


@contextlib.contextmanager
def stock_attention(model):
    """Within it the model uses transformers' own attention, whatever an engine has prepared before."""
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        yield model
    finally:
        model.set_attn_implementation(before)


def rows_of(an_engine, examples=MIXED_EXAMPLES):
    return [an_engine.option_row(e) if e.options else an_engine.target_row(e) for e in examples]


def random_prompts(a_backbone, rows, length, std=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, length, a_backbone.width)
    return torch.randn(shape, generator=generator, dtype=a_backbone.embedding.dtype) * std


def sequence(a_backbone, layout, text, prompt, answer=()):
    """[1, S, d] embeddings of one row in the order of the layout."""
    table = a_backbone.embedding
    text, answer = (table[torch.tensor(ids, dtype=torch.long)] for ids in (text, answer))
    first = (text, prompt) if layout == "text-prompt-answer" else (prompt, text)
    return torch.cat([*first, answer])[None]


def plain_log_likelihoods(a_backbone, layout, prompts, rows):
    """[B][K] log p(answer), by one stock forward per answer over the whole sequence."""
    out = []
    with stock_attention(a_backbone.model) as model:
        for row, prompt in zip(rows, prompts, strict=True):
            scores = []
            for answer in row.answers:
                embeds = sequence(a_backbone, layout, row.text, prompt, answer)
                logs = model(inputs_embeds=embeds, use_cache=False).logits[0].log_softmax(-1)
                start = len(row.text) + len(prompt) - 1
                scores.append(sum(logs[start + i, token] for i, token in enumerate(answer)))
            out.append(torch.stack(scores))
    return out


def answer_loss(log_likelihoods):
    """One number with a different weight on every answer, so that no two errors can cancel."""
    flat = torch.cat([row[torch.isfinite(row)] for row in log_likelihoods])
    return -(flat * torch.linspace(1, 2, len(flat), dtype=flat.dtype)).sum() / len(flat)


def timeless(rows):
    """Result rows without the durations, which differ from run to run."""
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in rows]
