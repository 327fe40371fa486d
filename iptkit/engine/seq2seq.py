"""Log-likelihoods and generated answers in encoder-decoder models (BART, T5).

The encoder reads [prompt, text] once per row, however many answers the row has; the decoder runs once per
answer, with the encoder states of its row. Prompt tuning in T5: Lester et al. 2021 (arXiv 2104.08691),
section 2; IPT uses BART: Qin et al. 2021 (arXiv 2110.07867).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from iptkit.engine.left_memory import left_memory
from iptkit.engine.prompt import Prompt
from iptkit.engine.rows import Row
from iptkit.engine.sites import Site, memory_at
from iptkit.models.backbone import Backbone
from iptkit.models.devices import to_device


def log_likelihoods(
    backbone: Backbone, prompt: Prompt, rows: Sequence[Row], sites: Sequence[Site] = ()
) -> tuple[Tensor, Tensor]:
    """Log p(answer | prompt, text) of every answer of every row; gradients flow into the prompt.

    Args:
      backbone: an encoder-decoder model.
      prompt: one per row, with embeds or keys_values.
      rows: B rows.
      sites: the attentions of a deep prompt.

    Returns:
      ([B, K] sums of token log-likelihoods, -inf where a row has fewer than K answers; [B, K] numbers of
      answer tokens).
    """
    device, num_answers = backbone.device, max(len(row.answers) for row in rows)
    answer_at = [b * num_answers + k for b, row in enumerate(rows) for k in range(len(row.answers))]
    owner = to_device([at // num_answers for at in answer_at], device)  # [A] row of each answer
    answers = [answer for row in rows for answer in row.answers]
    targets, _ = _padded(answers, device)  # [A, T]
    flat = [a * targets.shape[1] + t for a, answer in enumerate(answers) for t in range(len(answer))]
    present = to_device(flat, device)  # [tokens] flat indices in [A, T]
    tokens = torch.zeros(len(rows) * num_answers, dtype=torch.long)
    tokens[answer_at] = torch.tensor([len(answer) for answer in answers])
    start = targets.new_full((len(targets), 1), backbone.model.config.decoder_start_token_id)
    with left_memory(memory_at(sites, prompt)):
        states, mask = _encode(backbone, prompt, rows)
    with left_memory(memory_at(sites, prompt.rows(owner))):
        logits = backbone.model(  # padding on the right needs no decoder mask: no token to its left sees it
            encoder_outputs=BaseModelOutput(last_hidden_state=states.index_select(0, owner)),
            attention_mask=mask[owner],
            decoder_input_ids=torch.cat([start, targets[:, :-1]], 1),
            use_cache=False,
        ).logits.flatten(0, 1)[present]  # [tokens, V]
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    chosen = logits.gather(1, targets.flatten()[present][:, None])[:, 0] - logits.logsumexp(-1)
    answer = to_device(answer_at, device)[present // targets.shape[1]]
    sums, tokens = chosen.new_zeros(len(tokens)).index_add(0, answer, chosen), to_device(tokens, device)
    return sums.masked_fill(tokens == 0, -torch.inf).view(len(rows), -1), tokens.view(len(rows), -1)


class Seq2SeqDecoding:
    """Rows whose answers are being generated: the encoder has read them, and the decoder its start token.

    Only the last token runs through the decoder; the keys and values of the tokens before it are in
    transformers' cache. The settings in a model's generation_config (BART: beams, no repeated trigram) have
    no effect here.

    Args:
      backbone: an encoder-decoder model.
      prompt: one per row, with embeds or keys_values.
      rows: B rows (their answers are not used).
      sites: the attentions of a deep prompt.
    """

    def __init__(self, backbone: Backbone, prompt: Prompt, rows: Sequence[Row], sites: Sequence[Site] = ()):
        self.backbone, self.prompt, self.sites = backbone, prompt, sites
        accepted = inspect.signature(backbone.model.forward).parameters
        self.cache_name = (
            "cache" if "cache" in accepted else "past_key_values"
        )  # transformers 5.24 renamed it
        self.cache: Any = None
        with left_memory(memory_at(sites, prompt)):
            self.states, self.mask = _encode(backbone, prompt, rows)
        self.advance(self.mask.new_full((len(rows),), backbone.model.config.decoder_start_token_id))

    def logits(self) -> Tensor:
        """[B, V] logits of the next token of each row."""
        return self.next

    def only(self, index: Tensor) -> None:
        """Drop all rows except those of `index` [B']; `advance` must follow."""
        self.prompt, self.states, self.mask = self.prompt.rows(index), self.states[index], self.mask[index]
        self.cache.batch_select_indices(index)

    def advance(self, tokens: Tensor) -> None:
        """Append a token to each row, `tokens` [B], and run it through the decoder."""
        with left_memory(memory_at(self.sites, self.prompt)):
            out = self.backbone.model(
                encoder_outputs=BaseModelOutput(last_hidden_state=self.states),
                attention_mask=self.mask,
                decoder_input_ids=tokens[:, None],
                use_cache=True,
                **{self.cache_name: self.cache},
            )
        self.next, self.cache = out.logits[:, -1], out[self.cache_name]


def _encode(backbone: Backbone, prompt: Prompt, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Encoder states [B, n + L, d] and mask [B, n + L] of [prompt, text]."""
    ids, present = _padded([row.text for row in rows], backbone.device)
    table = backbone.model.get_input_embeddings()
    scale = getattr(table, "embed_scale", 1.0)  # some BARTs scale their embeddings; scale the prompt as well
    embeds = table(ids)
    if prompt.embeds is not None:
        embeds = torch.cat([prompt.embeds.to(table.weight.dtype) * scale, embeds], 1)
    mask = torch.cat([present.new_ones(len(rows), prompt.length), present], 1).long()
    return backbone.model.get_encoder()(inputs_embeds=embeds, attention_mask=mask).last_hidden_state, mask


def _padded(lists: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids [B, L], padded with zeros on the right, and a mask [B, L], False at padding."""
    longest = max(map(len, lists))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in lists], dtype=torch.long)
    lengths = to_device([len(row) for row in lists], device)
    return to_device(ids, device), torch.arange(longest, device=device) < lengths[:, None]
