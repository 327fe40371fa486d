"""Frozen models with prompts and small trained heads, many runs in one batch.

P-Tuning v2 (Liu et al. 2022, arXiv 2110.07602), section 3.3, needs no label words: a linear head reads the
class of a sentence from [CLS], the tag of a word from its first sub-token, and start and end of an answer
from every token.

    token ids -> frozen encoder with the run's prompt -> states at some positions -> the run's head -> classes

The prompt, the head or both train; a head with an empty prompt is a linear probe. The engine has the same
methods as `Engine`, so it works with the same `fit` and `evaluate`. It is made for encoders such as BERT. In
a causal model, whose tokens see only those before them, a sentence's class is read from its last token and
a word's tag from its last sub-token.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from iptkit.engine.batches import even_batches, similar_batches
from iptkit.engine.calls import check_backbone, check_rows
from iptkit.engine.compatibility import check_prompt
from iptkit.engine.exact import CLOSE, in_float32
from iptkit.engine.fast.attention import Padding
from iptkit.engine.fast.bert import FlatBert, FlatRows
from iptkit.engine.fast.memory import keep_freed_memory
from iptkit.engine.forward import tokens_that_fit
from iptkit.engine.head_rows import HeadRow, best_span, head_row
from iptkit.engine.interface import PromptEngine
from iptkit.engine.layouts import PROMPT_ID
from iptkit.engine.left_memory import is_observed, left_memory, own_attention, prepare
from iptkit.engine.prompt import Prompt
from iptkit.engine.sites import Site, check_sites, memory_at
from iptkit.models.backbone import Backbone
from iptkit.models.devices import to_device
from iptkit.tasks.examples import Example, TaggedExample
from iptkit.tasks.schemes import OUTSIDE

TOKENS = 4096  # tokens that run at once on a CPU


class HeadEngine(PromptEngine):
    """Scores classes with a linear head on one frozen model.

    Args:
      backbone: an encoder or a causal model.
      sites: the attentions that deep prompts go to (source.sites); () without deep prompts.
      tokens_per_batch: approximate number of tokens that run at once; None for 4,096 on a CPU, and on a GPU
        for as many as fit in a quarter of its memory.

    Raises:
      ValueError: the model is an encoder-decoder, bypasses transformers' attention interface, or has other
        states here than by its own forward pass; or the sites are those of another model.
    """

    flat: FlatBert | None

    def __init__(self, backbone: Backbone, sites: Sequence[Site] = (), tokens_per_batch: int | None = None):
        check_backbone(backbone, type(self).__name__)
        if backbone.kind == "seq2seq":
            raise ValueError(
                f"{backbone.name} is a {backbone.kind} model; a HeadEngine needs an encoder such as "
                "'minilm-l6' or a causal model (use an Engine for encoder-decoders, which answer in words)"
            )
        keep_freed_memory()
        prepare(backbone.model)
        check_sites(backbone, sites)
        self.flat = FlatBert(backbone.model) if FlatBert.fits(backbone.model) else None
        self.backbone, self.sites = backbone, list(sites)
        self.tokens_per_batch = tokens_per_batch or tokens_that_fit(backbone, TOKENS)
        self._rows: dict[tuple[Example, int], HeadRow] = {}
        self._has_warned = False  # of words without a token
        self._check_states()

    @torch.no_grad()
    def _check_states(self) -> None:
        """Raise ValueError if the model's own forward pass has other states; see Engine._check_scores."""
        model, table, n = self.backbone.model, self.backbone.embedding, 3
        ids = [i % len(table) for i in range(4, 20)]
        prompt = Prompt(table[ids[self._lead : self._lead + n]][None])
        row = HeadRow((*ids[: self._lead], *ids[self._lead + n :]), tuple(range(16 - n)), ((0,),), 1)
        with in_float32(model):
            with own_attention(model):
                states = model.base_model(input_ids=torch.tensor([ids], device=table.device))
            expected = states.last_hidden_state[0].double()
            found = self._picked(prompt, [row])[0].double()
        expected = torch.cat([expected[: self._lead], expected[self._lead + n :]])
        if not (found - expected).norm() <= CLOSE * expected.norm():
            raise ValueError(
                f"{self.backbone.name} ({type(model).__name__}) changes its embeddings or layers in a way "
                "that this engine does not support (scaling, soft caps, adapters, hooks); use a BERT, "
                "RoBERTa, DistilBERT, ModernBERT, Llama, Qwen or GPT-2 model"
            )

    # ---- words to rows ---------------------------------------------------------------------------
    def target_row(self, example: Example, target: int = 0) -> HeadRow:
        """The example with its right answer (for training, and the loss).

        Args:
          example: the example.
          target: index of the answer in its targets.
        """
        if (example, target) not in self._rows:
            self._rows[example, target] = self._row(example, target)
        return self._rows[example, target]

    def option_row(self, example: Example) -> HeadRow:
        """The example with all its classes as candidate answers (for scoring)."""
        row = self.target_row(example)
        every = tuple((k,) for k in range(row.num_classes))
        return HeadRow(row.text, row.positions, every, row.num_classes, row.names)

    def positions(self, example: Example, prompt_length: int, generated: int = 0) -> int:
        """The number of positions that the example takes with a prompt.

        Args:
          example: the example.
          prompt_length: n, positions of the prompt.
          generated: not used; a head generates nothing.
        Raises: ValueError for an example that a head cannot read.
        """
        return len(self.target_row(example).text) + prompt_length

    def classes(self, example: Example) -> tuple[str, ...]:
        """Names of the classes, in the order of the head's outputs; the same for a whole task."""
        return self.target_row(example).names

    def check_room(self, prompt_length: int) -> None:
        """Raise ValueError if the model has no positions left for a text."""
        if prompt_length >= self.backbone.max_positions:
            raise ValueError(
                f"a prompt of {prompt_length} vectors leaves no room for a text in the "
                f"{self.backbone.max_positions} positions of {self.backbone.name}"
            )

    def keep_contexts(self, groups: Iterable[Iterable[Example]]) -> None:
        """Does nothing: every token sees the prompt, so no keys and values are constant."""

    def _row(self, example: Example, target: int) -> HeadRow:
        row = head_row(self.backbone, example, target)
        if row.unread and isinstance(example, TaggedExample) and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{self.backbone.name} has no token for the word {example.words[row.unread[0]]!r} of "
                f"{example.input[:60]!r}; such words are not read and get the tag {OUTSIDE}",
                stacklevel=3,
            )
        return row

    # ---- batches ---------------------------------------------------------------------------------
    def batches(self, rows: Sequence[HeadRow], prompt_length: int) -> list[list[int]]:
        """Batches of rows, longest first, as lists of indices; deterministic.

        Args:
          rows: the rows; those of a batch have similar lengths if they will be padded.
          prompt_length: n, positions of the prompt.
        """
        sizes = [len(row.text) + prompt_length for row in rows]
        if self._fast is None or self.backbone.device.type != "cpu":
            return similar_batches(sizes, self.tokens_per_batch)
        order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
        return even_batches(order, sizes, [0] * len(sizes), self.tokens_per_batch)

    # ---- scores ----------------------------------------------------------------------------------
    def log_likelihoods(self, prompt: Prompt, rows: Sequence[HeadRow]) -> tuple[Tensor, Tensor]:
        """Log p(answer | text, prompt) of every candidate answer of every row.

        Args:
          prompt: one per row, with a head, and embeds, keys_values or neither; gradients flow into all.
          rows: B rows.

        Returns:
          ([B, K] log-probabilities summed over positions, -inf where a row has fewer than K answers;
          [B, K] number of labels in each sum).
        Raises: ValueError if a row has more tokens than the model has positions, the prompt has no head, or
          something else than a Prompt or rows was given.
        """
        check_rows(prompt, rows, HeadRow)
        logits, row_of = self._logits(prompt, rows)  # [M, C]
        spans = [row.is_span for row in rows]
        if any(spans) and not all(spans):
            raise ValueError(
                "a batch has both rows of spans and rows of classes; train them in separate fits"
            )
        if all(spans):
            logs = over_positions(logits, row_of, len(rows))
        else:
            logs = logits.log_softmax(-1)
        size = max(len(row.answers) for row in rows)
        labels: list[tuple[int, int, int]] = []  # state, class, answer
        count = torch.zeros(len(rows) * size, dtype=torch.long)
        start = 0
        for b, row in enumerate(rows):
            for k, answer in enumerate(row.answers):
                pairs = zip(answer, (0, 1), strict=True) if row.is_span else enumerate(answer)
                labels += [(start + position, label, b * size + k) for position, label in pairs]
                count[b * size + k] = len(answer) or 1  # a sentence without any token has the loss 0
            start += len(row.positions)
        device = logs.device
        state, column, answer_at = to_device(
            torch.tensor(labels, dtype=torch.long).view(-1, 3).t().contiguous(), device
        ).unbind(0)
        sums = logs.new_zeros(len(rows) * size).index_add(0, answer_at, logs[state, column])
        count = to_device(count, device)
        return sums.masked_fill(count == 0, -torch.inf).view(len(rows), -1), count.view(len(rows), -1)

    @torch.no_grad()
    def greedy(self, prompt: Prompt, rows: Sequence[HeadRow], max_tokens: Sequence[int]) -> list[str]:
        """The most likely classes as text: a class name, the tags of a sentence, or the text of a span.

        Args:
          prompt: one per row, with a head.
          rows: B rows.
          max_tokens: not used; there are as many tags as words, and a span has head_rows.MOST_TOKENS at most.
        """
        check_rows(prompt, rows, HeadRow)
        logits, row_of = self._logits(prompt, rows)
        if all(row.is_span for row in rows):
            parts = logits.float().split([len(row.positions) for row in rows])
            return [best_span(row.passage, row.offsets, part) for row, part in zip(rows, parts, strict=True)]
        found: list[list[str]] = [[] for _ in rows]
        for at, label in zip(row_of.tolist(), logits.argmax(-1).tolist(), strict=True):
            found[at].append(rows[at].names[label])
        for tags, row in zip(found, rows, strict=True):
            if not row.answers[0]:  # no word has a token
                tags.clear()
            for word in row.unread:
                tags.insert(word, OUTSIDE)
        return [" ".join(tags) for tags in found]

    def generate(self, *given: Any, **named: Any) -> NoReturn:
        """Raise ValueError: this engine chooses from classes, and an `Engine` generates texts."""
        raise ValueError(
            f"a {type(self).__name__} chooses from classes and generates no text; use evaluate or predict, "
            "or an Engine with a causal or encoder-decoder model"
        )

    # ---- one forward -----------------------------------------------------------------------------
    def _logits(self, prompt: Prompt, rows: Sequence[HeadRow]) -> tuple[Tensor, Tensor]:
        """Scores of the classes [M, C] at all positions, -inf for a task's missing ones; their rows [M]."""
        if prompt.head is None:
            raise ValueError("the prompt has no head, which this engine needs; wrap its source in WithHead")
        most, room = max(row.num_classes for row in rows), prompt.head.shape[1]
        if most > room:
            raise ValueError(
                f"a task has {most} classes, but the head has room for {room}; give WithHead "
                f"num_classes={most}"
            )
        picked, row_of = self._picked(prompt, rows)
        device, padding = picked.device, Padding.of([len(row.positions) for row in rows], picked.device)
        states, head = padding.pad(picked.to(prompt.head.dtype)), prompt.head.transpose(1, 2)
        logits = padding.unpad(torch.baddbmm(head[:, -1:], states, head[:, :-1]))
        have = to_device([row.num_classes for row in rows], device)[row_of]
        beyond = torch.arange(logits.shape[1], device=device) >= have[:, None]
        return logits.masked_fill(beyond, -torch.inf), row_of

    def _picked(
        self, prompt: Prompt, rows: Sequence[HeadRow], answers: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Last hidden states [M, d] at all positions of the rows, and their rows [M].

        Args:
          prompt: one per row.
          rows: B rows.
          answers: return the scores of the whole vocabulary [M, V] instead of the states.
        """
        device, model = self.backbone.device, self.backbone.model
        memory, lines = memory_at(self.sites, prompt), self._lines(prompt, rows)
        row_of = to_device([b for b, row in enumerate(rows) for _ in row.positions], device)
        read = [[p + prompt.length * (p >= self._lead) for p in row.positions] for row in rows]
        fast = self._fast
        if fast is not None:
            flat_rows = FlatRows.of(lines, self._types(prompt, rows), device)
            return fast(flat_rows, read, prompt.embeds, memory), row_of
        with left_memory(memory):
            inputs = self._inputs(prompt, rows, lines)
            found = model(**inputs).logits if answers else model.base_model(**inputs).last_hidden_state
        return found[row_of, to_device(list(itertools.chain(*read)), device)], row_of

    @property
    def _fast(self) -> FlatBert | None:
        """The fast forward pass, while the model allows it and no attention is observed."""
        is_fit = self.flat is not None and FlatBert.fits(self.backbone.model) and not is_observed()
        return self.flat if is_fit else None

    @property
    def _lead(self) -> int:
        """Number of tokens before prompt vectors: 1 in an encoder, for its [CLS]."""
        return int(self.backbone.kind == "encoder")

    def _lines(self, prompt: Prompt, rows: Sequence[HeadRow]) -> list[tuple[int, ...]]:
        """Token ids of each row; prompt vectors come right after an encoder's first token."""
        check_prompt(prompt, self.backbone, self.sites)
        n, lead, limit = prompt.length, self._lead, self.backbone.max_positions
        lines = [(*row.text[:lead], *[PROMPT_ID] * n, *row.text[lead:]) for row in rows]
        size = max(map(len, lines))
        if size > limit:
            raise ValueError(
                f"prompt ({n}) + text take {size} positions, {self.backbone.name} has {limit}; shorten the "
                "texts or the prompt"
            )
        return lines

    def _types(self, prompt: Prompt, rows: Sequence[HeadRow]) -> list[tuple[int, ...]]:
        """Segments of each row's tokens, or () for a row without segments; prompt vectors have segment 0."""
        lead, zeros = self._lead, (0,) * prompt.length
        return [(*row.types[:lead], *zeros, *row.types[lead:]) if row.types else () for row in rows]

    def _inputs(
        self, prompt: Prompt, rows: Sequence[HeadRow], lines: Sequence[tuple[int, ...]]
    ) -> dict[str, Tensor]:
        """The keyword arguments for the model's forward pass."""
        size = max(map(len, lines))
        pad = self.backbone.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*line, *[pad] * (size - len(line))] for line in lines])
        real = torch.arange(size) < torch.tensor([len(line) for line in lines])[:, None]
        ids, real = (to_device(t, self.backbone.device) for t in (ids, real))
        given = {"attention_mask": real.long()}
        if any(row.types for row in rows):
            kinds = [[*line, *[0] * (size - len(line))] for line in self._types(prompt, rows)]
            given["token_type_ids"] = to_device(kinds, self.backbone.device)
        if prompt.embeds is None or not prompt.length:
            return {**given, "input_ids": ids}
        words = self.backbone.embedding[ids.clamp(min=0)]
        vectors = words.masked_scatter((ids == PROMPT_ID)[..., None], prompt.embeds.to(words))
        return {**given, "inputs_embeds": vectors}


def over_positions(logits: Tensor, row_of: Tensor, count: int) -> Tensor:
    """[M, 2] log-probabilities of starting and ending at each position, over the positions of its row.

    Args:
      logits: [M, 2 or more] scores at all positions of all rows.
      row_of: [M] row of each position.
      count: number of rows.
    """
    peak = logits.detach().new_full((count, 2), -torch.inf)
    peak = peak.scatter_reduce(0, row_of[:, None].expand(-1, 2), logits[:, :2].detach(), "amax")
    shifted = logits[:, :2] - peak[row_of]
    total = shifted.new_zeros(count, 2).index_add(0, row_of, shifted.exp())
    return shifted - total.log()[row_of]
