"""Log-likelihoods and greedy answers of many rows (prompt, example) at once, each row with its own prompt.

Two layouts for causal models:
  "text-prompt-answer": the text comes first and nothing to the left of it trains, so its keys and values
  are constants. They are
      computed once per text (`Contexts`) and used as left-hand memory; only prompt and answer tokens run
      forward and backward.
      Exact: the same losses and gradients as the plain forward.
  "prompt-text-answer": the papers' order; the whole row runs through the model.
All answers of a row (the options of an example) are scored in one packed forward: each sees text, prompt
and itself only.
Encoder-decoder models take [prompt, text] into the encoder (see seq2seq.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iptkit import injection
from iptkit.backbones import Backbone
from iptkit.packing import Packed, pack
from iptkit.prompts import Prompt
from iptkit.tasks import Example

LAYOUTS = ("text-prompt-answer", "prompt-text-answer")


@dataclass(frozen=True)
class Row:
    """One example as token ids: `text` (L ids) and one tuple of ids per answer that is to be scored."""

    text: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]

    @property
    def cost(self) -> int:
        """Tokens that run through the model beside the prompt (text-first layout)."""
        return sum(len(a) - 1 for a in self.answers)


class Contexts:
    """Keys and values of texts; those given to `fill` are kept up to `limit_bytes`, others are computed
    each time."""

    def __init__(self, backbone: Backbone, limit_bytes: int = 2 << 30):
        self.backbone, self.limit_bytes, self.used_bytes = backbone, limit_bytes, 0
        self.kept: dict[tuple[int, ...], Tensor] = {}  # text -> [N, 2, h, L, k]

    def fill(self, texts: Iterable[tuple[int, ...]]) -> None:
        """Forget what was kept and keep these, shortest first, as far as they fit.

        All at once and in a fixed order, because the last bits of a text's keys depend on the batch that it
        was
        computed in: so a resumed training sees the same bits as an uninterrupted one.
        """
        backbone = self.backbone
        size = 2 if backbone.dtype == "mixed" else backbone.embedding.element_size()
        per_token = backbone.num_layers * 2 * backbone.num_kv_heads * backbone.head_width * size
        fitting, self.used_bytes = [], 0
        for text in sorted(set(texts), key=lambda t: (len(t), t)):
            if self.used_bytes + len(text) * per_token > self.limit_bytes:
                break
            fitting.append(text)
            self.used_bytes += len(text) * per_token
        self.kept = {}
        self.kept = self._encode(fitting)

    def memory(self, texts: Sequence[tuple[int, ...]]) -> tuple[injection.LeftMemory, Tensor]:
        """Returns the memory (per layer keys, values [B, h, L, k], right-padded) and lengths [B]."""
        found = {t: self.kept[t] for t in texts if t in self.kept}
        found |= self._encode(sorted({t for t in texts if t not in found}, key=lambda t: (len(t), t)))
        lengths = torch.tensor([len(t) for t in texts])
        first = found[texts[0]]
        layers, _, heads, _, width = first.shape
        joined = first.new_zeros(layers, 2, len(texts), heads, int(lengths.max()), width)
        for row, text in enumerate(texts):
            joined[:, :, row, :, : len(text)] = found[text]
        return injection.LeftMemory([(joined[i, 0], joined[i, 1]) for i in range(layers)]), lengths.to(
            first.device
        )

    @torch.no_grad()
    def _encode(
        self, texts: Sequence[tuple[int, ...]], tokens_per_batch: int = 1024
    ) -> dict[tuple[int, ...], Tensor]:
        backbone, out, start = self.backbone, {}, 0
        store = torch.bfloat16 if backbone.dtype == "mixed" else backbone.embedding.dtype
        while start < len(texts):
            stop = start + 1  # sorted by length: the last one of the batch is the longest
            while stop < len(texts) and len(texts[stop]) * (stop + 1 - start) <= tokens_per_batch:
                stop += 1
            batch = texts[start:stop]
            ids, mask = _padded(batch, backbone.device)
            cache = backbone.model.base_model(
                input_ids=ids, attention_mask=mask, use_cache=True
            ).past_key_values
            joined = torch.stack([torch.stack([layer.keys, layer.values]) for layer in cache.layers]).to(
                store
            )
            out |= {t: joined[:, :, row, :, : len(t)].contiguous() for row, t in enumerate(batch)}
            start = stop
        return out


class Engine:
    """Scores rows in one frozen model.

    Args:
      backbone: the frozen model.
      layout: one of LAYOUTS; encoder-decoder models always use "prompt-text-answer" (in the encoder).
      tokens_per_batch: about how many new tokens run at once (memory, not results, depends on it).
      context_bytes: how much memory cached texts may take.
    Raises:
      ValueError: unknown layout, an encoder without a language-model head, or a model that bypasses the
        attention interface.
    """

    def __init__(
        self,
        backbone: Backbone,
        layout: str = LAYOUTS[0],
        tokens_per_batch: int = 1024,
        context_bytes: int = 2 << 30,
    ):
        if layout not in LAYOUTS:
            raise ValueError(f"layout {layout!r} is unknown; choose one of {LAYOUTS}")
        if backbone.kind == "encoder":
            raise ValueError(
                f"{backbone.name} is an encoder without a language-model head, so it cannot score "
                "answers; use a causal or seq2seq model"
            )
        self.backbone, self.tokens_per_batch = backbone, tokens_per_batch
        self.layout = layout if backbone.kind == "causal" else LAYOUTS[1]
        if backbone.kind == "causal":
            injection.prepare(backbone.model)
        self.contexts = Contexts(backbone, context_bytes)
        self._ids: dict[str, tuple[int, ...]] = {}
        self._ends = {
            backbone.eos,
            *(i for i in self._tokens("\n")[:1] if backbone.tokenizer.decode([i]) == "\n"),
        }

    # ---- words to rows ---------------------------------------------------------------------------
    def target_row(self, example: Example, target: int = 0) -> Row:
        """The example with one accepted answer (training, loss)."""
        return Row(self._text(example), (self._answer(example, example.targets[target]),))

    def option_row(self, example: Example) -> Row:
        """The example with all its options (scoring)."""
        return Row(self._text(example), tuple(self._answer(example, option) for option in example.options))

    def keep_contexts(self, examples: Iterable[Example]) -> None:
        """Compute and keep the texts of these examples, forget others (nothing to do where the prompt comes
        first)."""
        if self.layout == LAYOUTS[0]:
            self.contexts.fill(self._text(example) for example in examples)

    def _text(self, example: Example) -> tuple[int, ...]:
        return self._tokens(example.input)

    def _answer(self, example: Example, answer: str) -> tuple[int, ...]:
        """Options are compared with each other and need no end; a free answer has to say where it stops."""
        ids = self._tokens(" " + answer)
        return ids if example.options else (*ids, self.backbone.eos)

    def _tokens(self, text: str) -> tuple[int, ...]:
        if text not in self._ids:
            self._ids[text] = tuple(self.backbone.tokenizer(text, add_special_tokens=False).input_ids)
        return self._ids[text]

    # ---- batches ---------------------------------------------------------------------------------
    def batches(self, rows: Sequence[Row], prompt_length: int) -> Iterator[list[int]]:
        """Index lists of similar rows, each small enough for one forward (grouped by length,
        deterministic)."""

        def tokens(i: int) -> int:
            text = len(rows[i].text) if self.layout == LAYOUTS[1] else 0
            return prompt_length + rows[i].cost + text

        # rows of one text stay together: its keys and values are then computed once for many prompts
        order = sorted(range(len(rows)), key=lambda i: (tokens(i), len(rows[i].text), rows[i].text, i))
        batch: list[int] = []
        for i in order:
            size, longest = len(batch) + 1, max(len(rows[j].text) for j in (*batch[-1:], i))
            if batch and (
                tokens(i) * size > self.tokens_per_batch or longest * size > 2 * self.tokens_per_batch
            ):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    # ---- scores ----------------------------------------------------------------------------------
    def log_likelihoods(self, prompt: Prompt, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """log p(answer | text, prompt) of every answer of every row.

        Args:
          prompt: embeds [B, n, d], one prompt per row; gradients flow into it.
          rows: B rows.
        Returns:
          ([B, K] summed token log-likelihoods, float32 or float64, -inf where a row has fewer than K
          answers; [B, K] answer tokens).
        Raises:
          ValueError: a row does not fit the model's positions.
        """
        self._check_length(prompt, rows)
        if self.backbone.kind == "seq2seq":
            from iptkit import seq2seq

            return seq2seq.log_likelihoods(self.backbone, prompt, rows)
        packed = pack(rows, prompt.length, self.layout == LAYOUTS[1], self.backbone.device)
        memory, mask, positions = self._left(packed, rows)
        hidden = self._forward(self._embed(prompt, packed), memory, mask, positions)
        heads = hidden.reshape(-1, hidden.shape[-1]).index_select(
            0, packed.head_index
        )  # [M, d]: answer positions only
        logits = self.backbone.model.get_output_embeddings()(heads)
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()
        chosen = logits[packed.target_head, packed.target_token] - logits.logsumexp(-1)[packed.target_head]
        out = torch.full(
            (len(rows) * packed.num_answers,), -torch.inf, dtype=chosen.dtype, device=chosen.device
        )
        present = packed.answer_tokens.flatten() > 0
        sums = torch.zeros_like(out).index_add(0, packed.target_slot, chosen)
        return torch.where(present, sums, out).view(len(rows), -1), packed.answer_tokens

    @torch.no_grad()
    def greedy(self, prompt: Prompt, rows: Sequence[Row], max_tokens: Sequence[int]) -> list[str]:
        """The model's own answers, token by token, until the end token, a line break or each row's
        max_tokens.

        An answer is one line: without that rule a model that was never taught to stop could not be scored
          at all.

        Args:
          prompt: embeds [B, n, d].  rows: B rows (their answers are not looked at).  max_tokens: B limits,
            >= 1.
        """
        rows = [Row(row.text, ((self.backbone.eos,),)) for row in rows]
        self._check_length(prompt, rows, max(max_tokens))
        if self.backbone.kind == "seq2seq":
            from iptkit import seq2seq

            return seq2seq.greedy(self.backbone, prompt, rows, max_tokens)
        packed = pack(rows, prompt.length, self.layout == LAYOUTS[1], self.backbone.device)
        memory, mask, positions = self._left(packed, rows)
        memory.grow = True
        hidden = self._forward(self._embed(prompt, packed), memory, mask, positions)
        last = packed.head_index - torch.arange(len(rows), device=hidden.device) * packed.ids.shape[1]
        state = hidden[torch.arange(len(rows), device=hidden.device), last]
        seen = torch.cat([mask[:, 0, 0, : mask.shape[-1] - packed.ids.shape[1]], packed.segments >= 0], 1)
        answers = self._continue(
            memory, state, seen, positions.gather(1, last[:, None])[:, 0], list(max_tokens)
        )
        texts = (self.backbone.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers)
        return [text.strip().split("\n")[0].strip() for text in texts]

    def _continue(
        self, memory: injection.LeftMemory, state: Tensor, seen: Tensor, position: Tensor, limits: list[int]
    ) -> list[list[int]]:
        """state: [B, d] last hidden state of each row; seen: [B, L] filled memory; position: [B] of that
        state."""
        model, answers = self.backbone.model, [[] for _ in limits]
        active = list(range(len(limits)))
        while active:
            tokens = model.get_output_embeddings()(state).argmax(-1)
            for row, token in zip(active, tokens.tolist(), strict=True):
                answers[row].append(token)
            keep = [
                i
                for i, row in enumerate(active)
                if answers[row][-1] not in self._ends and len(answers[row]) < limits[row]
            ]
            if not keep:
                break
            if len(keep) < len(active):
                index = torch.tensor(keep, device=state.device)
                grown = memory.select(index)
                memory, tokens, seen, position = grown, tokens[index], seen[index], position[index]
                active = [active[i] for i in keep]
            position = position + 1
            seen = torch.cat([seen, seen.new_ones(len(active), 1)], 1)
            state = self._forward(
                self.backbone.embedding[tokens][:, None], memory, seen[:, None, None], position[:, None]
            )[:, 0]
        return answers

    # ---- one forward -----------------------------------------------------------------------------
    def _left(self, packed: Packed, rows: Sequence[Row]) -> tuple[injection.LeftMemory, Tensor, Tensor]:
        """Memory, mask [B, 1, S, L + S] and position ids [B, S] for the layout."""
        batch, size = packed.ids.shape
        if self.layout == LAYOUTS[1]:
            heads, width = self.backbone.num_kv_heads, self.backbone.head_width
            empty = self.backbone.embedding.new_zeros(batch, heads, 0, width)
            memory = injection.LeftMemory([(empty, empty)] * self.backbone.num_layers)
            return memory, packed.visible[:, None], packed.offsets
        memory, lengths = self.contexts.memory([row.text for row in rows])
        filled = torch.arange(memory.layers[0][0].shape[2], device=lengths.device) < lengths[:, None]
        mask = torch.cat([filled[:, None].expand(-1, size, -1), packed.visible], -1)
        return memory, mask[:, None], packed.offsets + lengths[:, None]

    def _embed(self, prompt: Prompt, packed: Packed) -> Tensor:
        table = self.backbone.embedding
        return torch.cat([prompt.embeds.to(table.dtype), table[packed.ids[:, prompt.length :]]], 1)

    def _forward(
        self, embeds: Tensor, memory: injection.LeftMemory, mask: Tensor, positions: Tensor
    ) -> Tensor:
        with injection.left_memory(memory):
            return self.backbone.model.base_model(
                inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
            ).last_hidden_state

    def _check_length(self, prompt: Prompt, rows: Sequence[Row], more: int = 0) -> None:
        longest = max(len(r.text) + max(len(a) for a in r.answers) for r in rows) + prompt.length + more
        if longest > self.backbone.max_positions:
            raise ValueError(
                f"prompt ({prompt.length}) + text + answer take {longest} positions, "
                f"{self.backbone.name} has "
                f"{self.backbone.max_positions}; shorten the texts or the prompt"
            )


def _padded(texts: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(map(len, texts))
    ids = torch.tensor([[*t, *[0] * (longest - len(t))] for t in texts], device=device)
    mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in texts], device=device)
    return ids, mask
