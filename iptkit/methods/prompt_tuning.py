"""Prompt tuning: n free vectors per task stand in the row of a frozen model, and only they train.

Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning" (arXiv 2104.08691), section 2:
with P the prompt and X the embedded text, maximise p(answer | [P; X]) over P alone.

    P [R, n, d]     R runs, n virtual tokens, d width of the model's embeddings

A *run* is one training (a task, a seed, a learning rate, ...). The runs of a source have one row each, so
rows of many runs mix in one batch and train as if each were alone. This module also has the start values of
a prompt (`from_words`, `from_normal`), `FixedPrompt` for prompts that do not train, and `nearest_words`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from iptkit.engine.calls import check_backbone
from iptkit.engine.prompt import Kind, Prompt, PromptSource, as_trained, check_numbers
from iptkit.models.backbone import Backbone

WORDS = "Answer with the right choice. Answer:"  # our own start text; "zero-shot" asks with it too


class SoftPrompt(PromptSource):
    """One trained prompt per run (prompt tuning).

    Args:
      init: [R, n, d] start values, one prompt per run (see `from_words` and `from_normal`); for another kind
        [R, S, 2, h, n, k] or [R, N, 2, d, r].
      kind: "embeds" (vectors beside the text), "keys_values" (a deep prompt) or "adapters"; see
        engine/prompt.py.
      about: what the prompts were made for, where their file says so (see `compatibility.made_for`); an
        engine with another model or layout is then refused before anything runs.

    Raises:
      ValueError: `init` has the wrong shape for its kind.

    Example:
      >>> SoftPrompt(torch.zeros(2, 4, 8))(torch.tensor([1, 1, 0])).embeds.shape
      torch.Size([3, 4, 8])
    """

    def __init__(self, init: Tensor, kind: Kind = "embeds", *, about: Mapping[str, Any] | None = None):
        super().__init__()
        check_numbers(init, "init", kind)
        self.kind, self.about = kind, about or {}
        self.P = nn.Parameter(as_trained(init).clone().contiguous())

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] the run of each row -> one prompt per row."""
        return Prompt.of(self.kind, self.P.index_select(0, runs))


class FixedPrompt(PromptSource):
    """Given prompts that nothing trains: words, a mean prompt, decoded codes.

    Args:
      numbers: [R, n, d], or for another kind [R, S, 2, h, n, k] or [R, N, 2, d, r].
      kind: see `SoftPrompt`.
      about: see `SoftPrompt`.

    Raises:
      ValueError: `numbers` has the wrong shape for its kind.
    """

    P: Tensor

    def __init__(self, numbers: Tensor, kind: Kind = "embeds", *, about: Mapping[str, Any] | None = None):
        super().__init__()
        check_numbers(numbers, "numbers", kind)
        self.kind, self.about = kind, about or {}
        self.register_buffer("P", numbers.detach().clone())

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] the run of each row -> one prompt per row."""
        return Prompt.of(self.kind, self.P.index_select(0, runs))


def each_once(runs: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """The runs of a batch that need a prompt, and for each row the index of its run among them.

    Args:
      runs: [B] the run of each row.
      total: R, the number of runs of the source.
    Returns: used [U] and where [B], with used[where] equal to runs. On a CPU `used` has each run of the batch
      once, in order. On a GPU it has all R runs in order, or the run of each row if the batch has fewer rows:
      to count distinct runs there, the CPU would have to wait for the GPU.

    Example:
      >>> each_once(torch.tensor([2, 0, 2]), 4)
      (tensor([0, 2]), tensor([1, 0, 1]))
    """
    if runs.device.type == "cpu":
        return runs.unique(return_inverse=True)
    if len(runs) < total:
        return runs, torch.arange(len(runs), device=runs.device)
    return torch.arange(total, device=runs.device), runs


# ---- starts --------------------------------------------------------------------------------------
def from_words(backbone: Backbone, prompt_length: int, words: str = WORDS) -> Tensor:
    """[n, d] embeddings of the last n tokens of `words`; see `word_tokens`."""
    check_backbone(backbone, "from_words")
    rows = backbone.embedding[word_tokens(backbone, prompt_length, words)]
    return as_trained(rows)


@torch.no_grad()
def deep_from_words(backbone: Backbone, prompt_length: int, words: str = WORDS) -> Tensor:
    """[S, 2, h, n, k] keys and values of a causal model that reads the last n tokens of `words`.

    The text beside a deep prompt begins at position 0. With rotary positions (Llama) the words therefore take
    the positions -n to -1 and act like the same words before the text. Models with a table of positions have
    no negative ones: there the words begin at 0.

    Args:
      backbone: a causal model.
      prompt_length: n.
      words: the start text; see `word_tokens`.
    """
    check_backbone(backbone, "deep_from_words")
    ids = word_tokens(backbone, prompt_length, words)[None]
    is_rotary = any("rotary" in name for name, _ in backbone.model.named_modules())
    positions = torch.arange(prompt_length, device=ids.device)[None] - prompt_length * is_rotary
    read = backbone.model(input_ids=ids, position_ids=positions, use_cache=True)
    layers = read[
        "cache" if "cache" in read else "past_key_values"
    ].layers  # "cache": transformers from 5.24 on
    made = torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in layers])
    return as_trained(made)


def word_tokens(backbone: Backbone, prompt_length: int, words: str = WORDS) -> Tensor:
    """[n] ids of the last n tokens of `words`, which is repeated if it has fewer than n.

    Args:
      backbone: the model; its tokenizer is used.
      prompt_length: n >= 1.
      words: the start text.

    Raises:
      ValueError: prompt_length < 1, or `words` has no token.
    """
    ids = backbone.tokenizer(words, add_special_tokens=False).input_ids
    if prompt_length < 1 or not ids:
        raise ValueError(
            f"prompt_length={prompt_length} with words {words!r} ({len(ids)} tokens): both must be at least 1"
        )
    repeated = ids * -(-prompt_length // len(ids))
    return torch.tensor(repeated[-prompt_length:], device=backbone.device)


def from_normal(backbone: Backbone, prompt_length: int, std: float, generator: torch.Generator) -> Tensor:
    """[n, d] draws from N(0, std^2); 0.02 is transformers' default std for new weights.

    Such a start is badly conditioned in models whose embeddings are much larger.
    """
    check_backbone(backbone, "from_normal")
    drawn = torch.randn(prompt_length, backbone.width, generator=generator, device=generator.device)
    return drawn.to(backbone.device) * std


def nearest_words(backbone: Backbone, embeds: Tensor, count: int = 3) -> list[list[str]]:
    """The `count` tokens with the highest cosine to each of the n vectors in `embeds` [n, d]."""
    check_backbone(backbone, "nearest_words")
    table = nn.functional.normalize(backbone.embedding.float(), dim=-1)
    similar = nn.functional.normalize(embeds.float(), dim=-1) @ table.T
    return [
        [backbone.tokenizer.decode([i]) for i in row] for row in similar.topk(count, dim=-1).indices.tolist()
    ]
