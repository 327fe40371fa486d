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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from iptkit.allocator import keep_freed_memory
from iptkit.backbones import Backbone
from iptkit.forward import Contexts, Places, forward_of, log_probability, room
from iptkit.packing import Packed, pack
from iptkit.prompts import Prompt
from iptkit.tasks import Example

LAYOUTS = ("text-prompt-answer", "prompt-text-answer")
CLOSE = 0.02  # relative: more than rounding in bfloat16, less than what a scaled embedding changes


@dataclass(frozen=True)
class Row:
    """One example as token ids: `text` (L ids) and one tuple of ids per answer that is to be scored."""

    text: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]

    @property
    def cost(self) -> int:
        """Tokens that run through the model beside the prompt (text-first layout)."""
        return sum(len(a) - 1 for a in self.answers)


class Engine:
    """Scores rows in one frozen model.

    Args:
      backbone: the frozen model.
      layout: one of LAYOUTS; encoder-decoder models always use "prompt-text-answer" (in the encoder).
      tokens_per_batch: about how many new tokens run at once (memory, not results, depends on it).
      context_bytes: how much memory cached texts may take.
    Raises:
      ValueError: unknown layout, an encoder without a language-model head, a model that bypasses the
        attention interface, or one whose own scores come out otherwise.
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
        keep_freed_memory()
        self.backbone, self.tokens_per_batch = backbone, tokens_per_batch
        self.layout = layout if backbone.kind == "causal" else LAYOUTS[1]
        if backbone.kind == "causal":
            self.forward = forward_of(backbone)
            self.contexts = Contexts(backbone, self.forward, context_bytes)
        self._ids: dict[str, tuple[int, ...]] = {}
        self._ends = {
            backbone.eos,
            *(i for i in self._tokens("\n")[:1] if backbone.tokenizer.decode([i]) == "\n"),
        }
        if backbone.kind == "causal":
            self._check_numbers()

    @torch.no_grad()
    def _check_numbers(self) -> None:
        """Score a few tokens both ways: a model that scales embeddings or logits would differ."""
        model, table = self.backbone.model, self.backbone.embedding
        text, middle, answer = (torch.arange(4, 20, device=table.device) % len(table)).split([10, 3, 3])
        first = (text, middle) if self.layout == LAYOUTS[0] else (middle, text)
        logits = model(input_ids=torch.cat([*first, answer])[None], use_cache=False).logits[0, 12:-1]
        expected = logits.double().log_softmax(-1).gather(1, answer[:, None]).sum()
        row = Row(tuple(text.tolist()), (tuple(answer.tolist()),))
        found = self.log_likelihoods(Prompt(table[middle][None]), [row])[0][0, 0].double()
        if (found - expected).abs() > CLOSE * expected.abs():
            raise ValueError(
                f"{self.backbone.name} ({type(model).__name__}) treats its embeddings, logits or layers in a "
                "way that this engine does not know (scaling, soft caps, adapters, hooks); use a Llama, Qwen "
                "or GPT-2 model"
            )

    # ---- words to rows ---------------------------------------------------------------------------
    def target_row(self, example: Example, target: int = 0) -> Row:
        """The example with one accepted answer (training, loss)."""
        return Row(self._text(example), (self._answer(example, example.targets[target]),))

    def option_row(self, example: Example) -> Row:
        """The example with all its options (scoring)."""
        return Row(self._text(example), tuple(self._answer(example, option) for option in example.options))

    def keep_contexts(self, groups: Iterable[Iterable[Example]]) -> None:
        """Read these groups of examples once and keep their texts (not where the prompt comes first)."""
        if self.layout == LAYOUTS[0]:
            self.contexts.fill([[self._text(example) for example in group] for group in groups])

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
    def batches(self, rows: Sequence[Row], prompt_length: int) -> list[list[int]]:
        """Index lists of similar rows (by new tokens, then text), about equal in tokens, deterministic.

        Rows of one text stay together: its keys and values are then computed once for many prompts.
        """
        text_too = self.layout == LAYOUTS[1]
        new = [prompt_length + row.cost + text_too * len(row.text) for row in rows]
        order = sorted(
            range(len(rows)), key=lambda i: (new[i] // 8, len(rows[i].text), rows[i].text, new[i], i)
        )
        share = sum(new) / max(1, ceil(sum(new) / self.tokens_per_batch))
        batches: list[list[int]] = []
        size = longest = 0
        for i in order:
            longest = max(longest, len(rows[i].text))
            if (
                not batches
                or size + new[i] / 2 > share
                or longest * (len(batches[-1]) + 1) > 4 * self.tokens_per_batch
            ):
                batches.append([])
                size, longest = 0, len(rows[i].text)
            batches[-1].append(i)
            size += new[i]
        return batches

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
        memory, places = self._left(packed, rows)
        states = self.forward.hidden(self._embed(prompt, packed), places, memory, packed.head_index)
        logits = self.backbone.model.get_output_embeddings()(states)  # [M, V]: answer positions only
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()
        chosen = log_probability(logits, packed.target_head, packed.target_token)
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
        memory, places = self._left(packed, rows, max(max_tokens))
        size, index = packed.ids.shape[1], torch.arange(len(rows), device=packed.ids.device)
        filled = memory.shape[4] - max(max_tokens)
        state = self.forward.hidden(
            self._embed(prompt, packed), places, memory[..., :filled, :], packed.head_index
        )
        last = packed.head_index - index * size
        seen = torch.cat([places.visible[:, 0, : filled - size], places.real], 1)
        answers = self._continue(memory, filled, state, seen, places.positions[index, last], list(max_tokens))
        texts = (self.backbone.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers)
        return [text.strip().split("\n")[0].strip() for text in texts]

    def _continue(
        self, memory: Tensor, filled: int, state: Tensor, seen: Tensor, position: Tensor, limits: list[int]
    ) -> list[list[int]]:
        """state: [B, d] last hidden states at position [B]; seen: [B, filled] real places of memory."""
        answers: list[list[int]] = [[] for _ in limits]
        active, going = list(range(len(limits))), set(range(len(limits)))
        while True:
            tokens = self.backbone.model.get_output_embeddings()(state).argmax(-1)
            for row, token in zip(active, tokens.tolist(), strict=True):
                if row in going:
                    answers[row].append(token)
                    if token in self._ends or len(answers[row]) == limits[row]:
                        going.remove(row)
            if not going:
                return answers
            if len(going) < 0.7 * len(active):  # to drop rows is to copy the memory of the others
                keep = [i for i, row in enumerate(active) if row in going]
                index = torch.tensor(keep, device=state.device)
                memory, tokens, seen, position = (
                    memory[:, :, index],
                    tokens[index],
                    seen[index],
                    position[index],
                )
                active = [active[i] for i in keep]
            position, filled = position + 1, filled + 1
            seen = torch.cat([seen, seen.new_ones(len(active), 1)], 1)
            places = Places(seen[:, -1:], position[:, None], seen[:, None])
            at = torch.arange(len(active), device=state.device)
            state = self.forward.hidden(
                self.backbone.embedding[tokens][:, None], places, memory[..., :filled, :], at
            )

    # ---- one forward -----------------------------------------------------------------------------
    def _left(self, packed: Packed, rows: Sequence[Row], more: int = 0) -> tuple[Tensor, Places]:
        """Memory [N, 2, B, h, L + S + more, k] and the places of the new tokens, for the layout."""
        batch, size = packed.ids.shape
        real = packed.segments >= 0
        if self.layout == LAYOUTS[1]:
            return room(self.backbone, batch, size + more), Places(real, packed.offsets, packed.visible)
        memory, lengths = self.contexts.memory([row.text for row in rows], size + more)
        filled = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
        visible = torch.cat([filled[:, None].expand(-1, size, -1), packed.visible], -1)
        return memory, Places(real, packed.offsets + lengths[:, None], visible)

    def _embed(self, prompt: Prompt, packed: Packed) -> Tensor:
        table = self.backbone.embedding
        return torch.cat([prompt.embeds.to(table.dtype), table[packed.ids[:, prompt.length :]]], 1)

    def _check_length(self, prompt: Prompt, rows: Sequence[Row], more: int = 0) -> None:
        longest = max(len(r.text) + max(len(a) for a in r.answers) for r in rows) + prompt.length + more
        if longest > self.backbone.max_positions:
            raise ValueError(
                f"prompt ({prompt.length}) + text + answer take {longest} positions, "
                f"{self.backbone.name} has "
                f"{self.backbone.max_positions}; shorten the texts or the prompt"
            )
