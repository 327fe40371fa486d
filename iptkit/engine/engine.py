"""Log-likelihoods and generated answers of many rows (prompt, example) at once, each with its own prompt.

Where a prompt enters the model depends on its kind (see prompt.py):

    embeds       among the embeddings of the row's tokens, before the first layer: `Engine._embed`
    keys_values  as keys and values to the left of every attention's own: `sites.memory_at`, left_memory.py
    adapters     after every attention and feed-forward block: adapter_hooks.py

The layout says where the vectors stand in the row (see layouts.py):

    "text-prompt-answer"  Nothing trainable stands left of the text, so its keys and values are constants.
        They are computed once per text (`TextCache`); only prompt and answer tokens run forward and
        backward. Losses and gradients equal those of the plain forward pass.
    "prompt-text-answer"  The papers' order. The whole row runs through the model.
    (3, "{text}", 3)      Pieces of your own. Everything left of the first vector is cached as above.

All answers of a row (the options of an example) are scored in one packed forward pass (see rows.py); each
sees the text, the prompt and itself only. Deep prompts and adapters change every token, so rows with them
always run as a whole. An encoder-decoder model reads [prompt, text] in its encoder (see seq2seq.py).

One call of `Engine.log_likelihoods`, from the example to the loss:

    target_row, option_row    words to token ids               Row (word_rows.py)
    _pack                     B rows in one rectangle          Packed, memory of cached texts, Places
    _embed                    prompt vectors put in            [B, S, d]
    _hidden                   the frozen layers (forward.py)   [M, d], at answer positions only
    log_probability           the LM head                      [B, K]

Answers are generated from the same forward pass: `greedy` (one line, to be scored) and `generate` (any text,
likeliest or drawn) run it once without an answer, and then once for each further token (decoding.py).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from iptkit.engine.adapter_hooks import adapters_after, find_blocks
from iptkit.engine.batches import even_batches
from iptkit.engine.calls import check_backbone, check_modules, check_rows, checked_texts, runs_of
from iptkit.engine.compatibility import check_prompt, check_runs, check_source
from iptkit.engine.decoding import (
    CausalDecoding,
    Decoding,
    Ending,
    SampleConfig,
    Sampler,
    decode,
    likeliest,
)
from iptkit.engine.exact import CLOSE, in_float32
from iptkit.engine.fast.elementwise import log_probability
from iptkit.engine.fast.memory import keep_freed_memory
from iptkit.engine.forward import StockForward, forward_of, tokens_that_fit
from iptkit.engine.interface import PromptEngine
from iptkit.engine.layouts import LAYOUTS, PROMPT_ID, Layout
from iptkit.engine.left_memory import own_attention, prepare
from iptkit.engine.prompt import Prompt, PromptSource
from iptkit.engine.rows import Packed, Places, Row, pack, shared_prefixes
from iptkit.engine.sites import Site, check_sites, memory_at
from iptkit.engine.text_cache import TextCache
from iptkit.engine.word_rows import WordRows
from iptkit.models.backbone import Backbone
from iptkit.models.devices import to_device
from iptkit.tasks.examples import Example

TOKENS = 1024  # new tokens that run at once on a CPU


class Engine(PromptEngine):
    """Scores and generates answers as words, in one frozen causal or encoder-decoder model.

    `log_likelihoods` and `greedy` serve `fit` and `evaluate`; `generate` answers texts of your own.

    Args:
      backbone: the frozen model.
      layout: one of LAYOUTS or the pieces of a `Layout`; encoder-decoder models always use
        "prompt-text-answer" (in the encoder).
      tokens_per_batch: approximate number of new tokens that run at once. It changes memory and speed, and
        results by floating-point rounding only. None: 1,024 on a CPU; on a GPU as many as fit in a quarter of
        its memory.
      context_bytes: limit for the cached texts; the prefixes of `share` may take as much again.
      sites: the attentions that deep prompts go to (source.sites); () without deep prompts.

    Raises:
      ValueError: the layout is unknown; pieces were given for an encoder-decoder model; the model is an
        encoder without a language-model head, bypasses transformers' attention interface, or gets other
        scores here than by its own forward pass; or the sites are those of another model.

    Example:
      >>> from iptkit import models
      >>> model = models.load("tiny-causal")
      >>> engine = Engine(model)
      >>> row = engine.option_row(Example("I had a sad trip", ("bad",), ("good", "bad")))
      >>> scores, num_tokens = engine.log_likelihoods(Prompt(torch.zeros(1, 4, model.width)), [row])
      >>> scores.shape
      torch.Size([1, 2])
    """

    layout: str | tuple[int | str, ...]

    def __init__(
        self,
        backbone: Backbone,
        layout: str | tuple[int | str, ...] = LAYOUTS[0],
        tokens_per_batch: int | None = None,
        context_bytes: int = 2 << 30,
        sites: Sequence[Site] = (),
    ):
        check_backbone(backbone, "Engine")
        pieces = Layout.of(layout)
        if backbone.kind == "seq2seq" and not isinstance(layout, str):
            raise ValueError(
                f"{backbone.name} has an encoder that reads the prompt before the text, but the layout has "
                f"other pieces: {pieces.pieces}; use {LAYOUTS[1]!r}"
            )
        if backbone.kind == "encoder":
            raise ValueError(
                f"{backbone.name} is an encoder without a language-model head, so it cannot score "
                "answers; use a causal or seq2seq model"
            )
        keep_freed_memory()
        check_sites(backbone, sites)
        self.backbone, self.sites = backbone, list(sites)
        self.tokens_per_batch = tokens_per_batch or tokens_that_fit(backbone, TOKENS)
        self.layout = layout if backbone.kind == "causal" else LAYOUTS[1]
        self.words = WordRows(backbone, Layout.of(self.layout))
        if backbone.kind == "causal":
            self.forward = forward_of(backbone)
            # The first caches what stands left of prompts, the second what rows from `share` have in common.
            self.contexts = TextCache(backbone, self.forward, context_bytes)
            self.beginnings = TextCache(backbone, self.forward, context_bytes, is_halved=False)
        if backbone.kind == "seq2seq" and backbone.device.type != "cpu":
            prepare(backbone.model)  # transformers' own masks wait for the GPU in each forward pass
        self._check_scores()

    @torch.no_grad()
    def _check_scores(self) -> None:
        """Raise ValueError if the model's own forward pass scores some tokens otherwise.

        Both run in float32 whatever the model's dtype, so that rounding makes no difference, but a model that
        scales its embeddings or logits does.
        """
        model, table = self.backbone.model, self.backbone.embedding
        n = self.words.layout.prompt_length or 3
        some = torch.arange(4, 17 + n, device=table.device) % len(table)
        text, prompt, answer = (part.tolist() for part in some.split([10, n, 3]))
        others = [(i,) for i in range(4, min(36, len(table)))]  # a single score could agree by chance
        row, vectors = Row(tuple(text), (tuple(answer), *others)), iter(prompt)
        line = itertools.chain(*self.words.line(row.text, n))
        before = [next(vectors) if i == PROMPT_ID else i for i in line]
        if self.backbone.kind == "seq2seq":
            decoded = [model.config.decoder_start_token_id, *answer[:-1]]
            given = {"input_ids": before, "decoder_input_ids": decoded}
        else:
            given = {"input_ids": [*before, *answer[:-1]]}
        inputs = {name: torch.tensor([ids], device=table.device) for name, ids in given.items()}
        with in_float32(model):
            with own_attention(model):
                logits = model(**inputs, use_cache=False).logits[0, -3:].double().log_softmax(-1)
            found = self.log_likelihoods(Prompt(table[prompt][None]), [row])[0][0].double()
        expected = torch.cat([logits.gather(1, some[-3:, None]).sum()[None], logits[0, 4 : 4 + len(others)]])
        if not ((found - expected).abs() <= CLOSE * expected[0].abs().clamp(min=1)).all():
            raise ValueError(
                f"{self.backbone.name} ({type(model).__name__}) changes its embeddings, logits or layers in "
                "a way that this engine does not support (scaling, soft caps, adapters, hooks); use a Llama, "
                "Qwen, GPT-2, T5 or BART model"
            )

    # ---- words to rows ---------------------------------------------------------------------------
    def target_row(self, example: Example, target: int = 0) -> Row:
        """The example with one accepted answer (for training, and the loss).

        Args:
          example: the example.
          target: index of the answer in its targets.
        """
        return self.words.target_row(example, target)

    def option_row(self, example: Example) -> Row:
        """The example with all its options (for scoring).

        Raises: ValueError if two options have the same tokens, so that the model cannot tell them apart.
        """
        return self.words.option_row(example)

    def positions(self, example: Example, prompt_length: int, generated: int = 0) -> int:
        """The number of positions that the example takes, with a prompt and its longest answer.

        Args:
          example: the example.
          prompt_length: n, positions of the prompt.
          generated: number of tokens that may be generated before an end token, 0 for none.
        Raises: ValueError for options or answers that cannot be scored (see option_row), or if nothing stands
          before the answer.
        """
        return self.words.positions(example, prompt_length, generated)

    def classes(self, example: Example) -> tuple[str, ...]:
        """(): answers are words, and no head chooses from classes."""
        return ()

    def keep_contexts(self, groups: Iterable[Iterable[Example]]) -> None:
        """Read these groups of examples once, and cache keys and values of what is left of their prompts."""
        words, n = self.words, self.words.layout.prompt_length or 1
        if self.backbone.kind == "causal" and words.line((), n)[0] != words.line((0,), n)[0]:
            self.contexts.fill([[words.line(words.tokens(e.input), n)[0] for e in group] for group in groups])

    def forget_contexts(self) -> None:
        """Free the memory of all cached texts."""
        self.contexts.forget()
        self.beginnings.forget()

    def check_room(self, prompt_length: int) -> None:
        """Raise ValueError if the layout has places for another number of prompt vectors."""
        self.words.line((), prompt_length)

    def share(self, rows: Sequence[Row]) -> list[Row]:
        """The same rows, to be scored without a prompt, marked with the first tokens they have in common.

        Shared tokens are read here, once, and cached in the dtype of the model's residual stream. In float16,
        as a mixed model caches its texts, a score would depend on the other rows.
        """
        if self.backbone.kind != "causal" or not rows:
            return list(rows)
        self._check_length(Prompt(self.backbone.embedding[None, :0]), rows)
        lines = [self.words.line(row.text, 0)[1] for row in rows]
        sizes = shared_prefixes(lines)
        prefixes = sorted({line[:size] for line, size in zip(lines, sizes, strict=True) if size}, key=len)
        chunks = even_batches(range(len(prefixes)), list(map(len, prefixes)), [0] * len(prefixes), 1024)
        self.beginnings.fill([[prefixes[i] for i in chunk] for chunk in chunks])
        return [replace(row, shared=size) for row, size in zip(rows, sizes, strict=True)]

    # ---- batches ---------------------------------------------------------------------------------
    def batches(self, rows: Sequence[Row], prompt_length: int) -> list[list[int]]:
        """Batches of similar rows with about equal numbers of tokens, as lists of indices; deterministic.

        Rows with the same text stay together, so that its keys and values are computed once for many prompts.

        Args:
          rows: the rows.
          prompt_length: n, positions of the prompt.
        """
        return self._batches(rows, prompt_length)

    def _batches(self, rows: Sequence[Row], prompt_length: int, generated: int = 0) -> list[list[int]]:
        """The same, where each row may get `generated` more tokens, which take memory."""
        lines = [self.words.split(row, prompt_length) for row in rows]
        new = [len(line) + row.cost for (_, line), row in zip(lines, rows, strict=True)]
        left = [line for line, _ in lines]
        order = sorted(range(len(rows)), key=lambda i: (new[i] // 8, len(left[i]), left[i], new[i], i))
        return even_batches(order, new, [len(ids) + generated for ids in left], self.tokens_per_batch)

    # ---- scores ----------------------------------------------------------------------------------
    def log_likelihoods(self, prompt: Prompt, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Log p(answer | text, prompt) of every answer of every row.

        Args:
          prompt: one per row, with embeds, keys_values or adapters; gradients flow into it.
          rows: B rows.

        Returns:
          ([B, K] sums of token log-likelihoods in float32 or float64, -inf where a row has fewer than K
          answers; [B, K] numbers of answer tokens).

        Raises:
          ValueError: a row has more tokens than the model has positions, the prompt has the shape of another
            model, the model has no blocks that can take adapters, or something else than a Prompt or rows
            was given.
        """
        check_rows(prompt, rows, Row)
        self._check_length(prompt, rows)
        if self.backbone.kind == "seq2seq":
            from iptkit.engine import seq2seq

            return seq2seq.log_likelihoods(self.backbone, prompt, rows, self.sites)
        packed, memory, places = self._pack(prompt, rows)
        states = self._hidden(prompt, self._embed(prompt, packed), places, memory, packed.scored_at)
        logits = self.forward.logits(states)  # [M, V]: answer positions only
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()
        chosen = log_probability(logits, packed.target_state, packed.target_token)
        out = chosen.new_full((len(rows) * packed.num_answers,), -torch.inf)
        present = packed.answer_tokens.flatten() > 0
        sums = torch.zeros_like(out).index_add(0, packed.target_answer, chosen)
        return torch.where(present, sums, out).view(len(rows), -1), packed.answer_tokens

    @torch.no_grad()
    def greedy(self, prompt: Prompt, rows: Sequence[Row], max_tokens: Sequence[int]) -> list[str]:
        """The model's own answers, token by token, up to an end token, a line break or the row's limit.

        An answer is one line; otherwise a model that never learned to stop could not be scored.

        Args:
          prompt: one per row.
          rows: B rows (their answers are not used).
          max_tokens: maximum number of tokens of each row, >= 1.
        """
        check_rows(prompt, rows, Row)
        rows = [self._question(row.text) for row in rows]
        self._check_length(prompt, rows, max_tokens)
        ends = self.words.ends if self.backbone.kind == "causal" else {self.backbone.eos}
        ending = Ending(self.backbone.tokenizer, ends)
        answers = decode(self._decoding(prompt, rows, max(max_tokens)), max_tokens, likeliest, ending.is_done)
        return [ending.text(ids).strip().split("\n")[0].strip() for ids in answers]

    # ---- texts -----------------------------------------------------------------------------------
    @torch.no_grad()
    def generate(
        self,
        source: PromptSource | None,
        texts: Sequence[str],
        *,
        runs: int | Sequence[int] = 0,
        max_new_tokens: int = 32,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
        stop: str | Sequence[str] = (),
    ) -> list[str]:
        """The model's continuation of each text, with the prompts of a source.

        A continuation ends before the model's end token, before a string of `stop`, or after `max_new_tokens`
        tokens. It may have several lines. White space around it and special tokens are left out.

        Drawn texts can be repeated: the same texts, max_new_tokens and state of the generator give the same
        continuations, whatever `tokens_per_batch` is (up to floating-point rounding).

        Args:
          source: the prompts; None for the text alone.
          texts: B texts, as the prompt's task has them in its examples.
          runs: the row of the source for each text; one number for all of them.
          max_new_tokens: >= 1, limit for each text.
          do_sample: draw tokens at random; if False, always take the likeliest token.
          temperature: > 0; the logits are divided by it before tokens are drawn.
          top_p: in (0, 1]; draw from the most likely tokens only, as few as have this probability together.
          generator: draws the random numbers; needed if do_sample is True.
          stop: strings that end a continuation and are not part of it.

        Returns: B continuations, in the order of the texts.

        Raises:
          ValueError: before the model runs: the source was made for another model or layout, has no such run,
            or has a prompt that is not finite; a text is too long; or a setting is out of its range or would
            have no effect.

        Example:
          >>> from iptkit import methods, models
          >>> model = models.load("tiny-causal")
          >>> engine = Engine(model)
          >>> source = methods.SoftPrompt(methods.from_words(model, prompt_length=4)[None])
          >>> said = engine.generate(source, ["I had a sad trip", "ten and one"], max_new_tokens=3)
          >>> len(said)
          2
        """
        settings = SampleConfig(max_new_tokens, do_sample, temperature, top_p)
        texts = checked_texts(texts)
        numbers, of_texts = settings.numbers(len(texts), generator), runs_of(runs, len(texts))
        ending = Ending.before(self.backbone, stop)
        if not texts:
            return []
        rows = [self._question(self.words.tokens(text)) for text in texts]
        made, where = self._made(source, of_texts)
        self._check_texts(texts, rows, made.length, max_new_tokens)
        found = [""] * len(texts)
        for batch in self._batches(rows, made.length, max_new_tokens):
            prompt = made.rows(where[batch].to(self.backbone.device))
            choose = likeliest if numbers is None else Sampler(numbers[batch], temperature, top_p)
            decoding = self._decoding(prompt, [rows[i] for i in batch], max_new_tokens)
            answers = decode(decoding, [max_new_tokens] * len(batch), choose, ending.is_done)
            for i, ids in zip(batch, answers, strict=True):
                found[i] = ending.text(ids).strip()
        return found

    def _made(self, source: PromptSource | None, runs: Sequence[int]) -> tuple[Prompt, Tensor]:
        """The prompts of a source, each that is needed once, and the index [B] of each text's own."""
        if source is None:
            if any(runs):
                raise ValueError(
                    "runs were given without a source of prompts; give a source, or leave out runs"
                )
            return Prompt(self.backbone.embedding[None, :0]), torch.zeros(len(runs), dtype=torch.long)
        was_training = check_modules(self, source).training
        check_source(self, source.eval())
        check_runs(source, runs)
        used, where = torch.tensor(runs).unique(return_inverse=True)
        made = source(used.to(self.backbone.device))
        source.train(was_training)
        for run, is_finite in zip(used.tolist(), made.are_finite.tolist(), strict=True):
            if not is_finite:
                raise ValueError(
                    f"the prompt of run {run} has values that are not finite; train it with a smaller "
                    "learning rate"
                )
        return made, where

    def _check_texts(
        self, texts: Sequence[str], rows: Sequence[Row], prompt_length: int, max_new_tokens: int
    ) -> None:
        """Raise ValueError for a text that does not fit the model's positions, or has nothing to continue."""
        fixed, most = self.words.fixed(prompt_length), self.backbone.max_positions
        for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
            if not fixed + len(row.text):
                raise ValueError(f"texts[{i}] ({text!r}) has no token, and there is no prompt; leave it out")
            size = fixed + len(row.text) + max_new_tokens
            if size > most:
                raise ValueError(
                    f"texts[{i}] ({text[:40]!r}): prompt ({prompt_length}) + text + max_new_tokens "
                    f"({max_new_tokens}) take {size} positions, {self.backbone.name} has {most}; shorten the "
                    "text or the prompt, or lower max_new_tokens"
                )

    def _question(self, text: tuple[int, ...]) -> Row:
        """A row whose answer is to be generated; it stands for it with a single token."""
        return Row(text, ((self.backbone.eos,),))

    def _decoding(self, prompt: Prompt, rows: Sequence[Row], most: int) -> Decoding:
        """The rows after everything before their answers, with room for `most` generated tokens."""
        if self.backbone.kind == "seq2seq":
            from iptkit.engine import seq2seq

            return seq2seq.Seq2SeqDecoding(self.backbone, prompt, rows, self.sites)
        packed, (memory,), places = self._pack(prompt, rows, most)
        size, index = packed.ids.shape[1], torch.arange(len(rows), device=packed.ids.device)
        filled = memory.shape[4] - most
        embeds = self._embed(prompt, packed)
        state = self._hidden(prompt, embeds, places, [memory[..., :filled, :]], packed.scored_at)
        visible = torch.cat([places.visible[:, 0, : filled - size], places.real], 1)
        position = places.positions[index, packed.scored_at - index * size]
        return CausalDecoding(
            self.backbone, self._hidden, self.forward.logits, prompt, memory, filled, state, visible, position
        )

    # ---- one forward -----------------------------------------------------------------------------
    def _pack(
        self, prompt: Prompt, rows: Sequence[Row], more: int = 0
    ) -> tuple[Packed, list[Tensor], Places]:
        """The new tokens of rows, the memory to their left (see forward.py), their positions and mask.

        Args:
          prompt: one per row.
          rows: B rows.
          more: further positions in memory, for generated tokens; the memory is then one tensor.
        """
        is_shared = any(row.shared for row in rows)
        if is_shared and (prompt.length or prompt.reaches_text):
            raise ValueError("rows from Engine.share are scored without a prompt; make new rows for a prompt")
        lefts, lines = zip(*(self.words.split(row, prompt.length) for row in rows), strict=True)
        packed = pack(lines, [row.answers for row in rows], self.backbone.device)
        size, real = packed.ids.shape[1], packed.segments >= 0
        cache = self.beginnings if is_shared else self.contexts
        if more or prompt.reaches_text or not self.forward.wants_parts:
            memory = [cache.memory(lefts, size + more)]
        else:
            memory = cache.parts(lefts, real.sum(1).tolist())
        if not any(lefts):
            return packed, memory, Places(real, packed.offsets, packed.visible, packed.real_at)
        lengths = to_device([len(left) for left in lefts], real.device)[:, None]
        filled = torch.arange(max(map(len, lefts)), device=real.device) < lengths
        visible = torch.cat([filled[:, None].expand(-1, size, -1), packed.visible], -1)
        return packed, memory, Places(real, packed.offsets + lengths, visible, packed.real_at)

    def _hidden(
        self, prompt: Prompt, embeds: Tensor, places: Places, memory: Sequence[Tensor], at: Tensor
    ) -> Tensor:
        """One forward pass (see forward.py); deep prompts and adapters run in transformers' own layers."""
        if prompt.adapters is not None:
            with adapters_after(self._blocks, prompt.adapters):
                return self._stock.hidden(embeds, places, memory, at)
        if prompt.keys_values is None:
            return self.forward.hidden(embeds, places, memory, at)
        return self._stock.hidden(embeds, places, memory, at, memory_at(self.sites, prompt))

    @functools.cached_property
    def _stock(self) -> StockForward:
        return StockForward(self.backbone)

    @functools.cached_property
    def _blocks(self) -> list[torch.nn.Module]:
        return find_blocks(self.backbone.model)

    def _embed(self, prompt: Prompt, packed: Packed) -> Tensor:
        """[B, S, d] embeddings of the new tokens, with the prompts' vectors in their places."""
        table = self.backbone.embedding
        words = table[packed.ids]
        if prompt.embeds is None:
            return words
        vectors = prompt.embeds.flatten(0, 1).to(table.dtype)
        return words.flatten(0, 1).index_copy(0, packed.prompt_at, vectors).view_as(words)

    def _check_length(self, prompt: Prompt, rows: Sequence[Row], more: Sequence[int] = ()) -> None:
        """Raise ValueError unless the rows, with `more` generated tokens each, fit the model's positions."""
        check_prompt(prompt, self.backbone, self.sites)
        fixed = self.words.fixed(prompt.length)
        sizes = [len(row.text) + max(map(len, row.answers)) + fixed for row in rows]
        longest = max(map(sum, zip(sizes, more, strict=True)) if more else sizes)
        if longest > self.backbone.max_positions:
            raise ValueError(
                f"prompt ({prompt.length}) + text + answer take {longest} positions, {self.backbone.name} "
                f"has {self.backbone.max_positions}; shorten the texts or the prompt"
            )
