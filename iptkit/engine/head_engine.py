"""Frozen models with prompts and small trained heads, many runs in one batch.

P-Tuning v2 (Liu et al. 2022, arXiv 2110.07602), section 3.3, needs no words for labels: a linear head reads
the class of a sentence from [CLS], of a word from its first sub-token, and start and end of an answer from
every token.

    token ids -> frozen encoder with the run's prompt -> states at some positions -> the run's head -> classes

Prompt, head or both train; a head with an empty prompt is a linear probe. The engine has the same methods
as engine.Engine, so `train.fit` and `evaluate` are the same too. Made for encoders (BERT and its kin); in a
causal model, whose tokens see only what stands before them, a sentence's class is read from its last token
and a word's from its last piece.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iptkit.engine.batches import even_batches, similar_batches
from iptkit.engine.compatibility import check_prompt
from iptkit.engine.exact import CLOSE, in_float32
from iptkit.engine.fast.attention import Slots
from iptkit.engine.fast.bert import FlatBert, Rows
from iptkit.engine.fast.memory import keep_freed_memory
from iptkit.engine.forward import tokens_that_fit
from iptkit.engine.layouts import SLOT
from iptkit.engine.left_memory import is_observed, left_memory, own_attention, prepare
from iptkit.engine.prompt import Prompt
from iptkit.engine.sites import Site, check_sites, memory_at
from iptkit.models.backbone import Backbone
from iptkit.models.devices import to_device
from iptkit.tasks.examples import Example, SpanExample, TaggedExample
from iptkit.tasks.schemes import OUTSIDE

MOST_TOKENS = 30  # the longest answer that is looked for (BERT's SQuAD script: max_answer_length)


def best_span(passage: str, offsets: Sequence[tuple[int, int]], logits: Tensor) -> str:
    """The text from the start to the end that together are likeliest, the end at or behind the start.

    Args:
      offsets: P pairs, where each token begins and ends in the passage.
      logits: [P, 2] scores to start and to end there.
    """
    start, end = logits[:, 0], logits[:, 1]  # [P] each
    both = start[:, None] + end[None, :]
    order = torch.arange(len(start), device=both.device)
    far = order[None, :] - order[:, None]
    best = int(both.masked_fill((far < 0) | (far >= MOST_TOKENS), -torch.inf).argmax())
    first, last = divmod(best, len(start))
    return passage[offsets[first][0] : offsets[last][1]].strip()  # a token may begin with its blank


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


TOKENS = 4096  # that run at once on a CPU
NO_TOKEN = "{!r} has no token; leave it out"
BLANKS = "\u2581\u0120"  # a blank in the vocabulary of SentencePiece, and of byte-level tokenizers


@dataclass(frozen=True)
class HeadRow:
    """One example for an encoder.

    Attributes:
      text: token ids with their special tokens.
      positions: where the head looks (in `text`); (0,), with an empty answer, where no word has a token.
      answers: K candidate answers, each one class per position; for a span, K pairs of places in `positions`.
      num_classes: classes of this row's task; a head may have room for more.
      names: of the classes; empty for a span.
      is_span: start and end are chosen among the positions.
      types: 0 and 1 for first and second segment, or () for a model that does not tell them apart.
      passage, offsets: of a span: the text, and where each position's token begins and ends in it.
      unread: of a tagged sentence: its words without a token, which have no position and get the tag O.
    """

    text: tuple[int, ...]
    positions: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    num_classes: int
    names: tuple[str, ...] = ()
    is_span: bool = False
    types: tuple[int, ...] = ()
    passage: str = ""
    offsets: tuple[tuple[int, int], ...] = ()
    unread: tuple[int, ...] = ()


class HeadEngine:
    """Scores rows (prompt, example) in one frozen model.

    Args:
      backbone: an encoder or a causal model.
      sites: where the deep prompts go (those of the source); () without deep prompts.
      tokens_per_batch: about how many tokens run at once; None for 4,096 on a CPU, on a GPU for as many as
        a quarter of its memory takes.

    Raises:
      ValueError: an encoder-decoder model, one that bypasses the attention interface, one whose own states
        come out otherwise, or sites of another model.
    """

    def __init__(self, backbone: Backbone, sites: Sequence[Site] = (), tokens_per_batch: int | None = None):
        if backbone.kind == "seq2seq":
            raise ValueError(
                f"{backbone.name} is a {backbone.kind} model; a HeadEngine needs an encoder such as "
                "'minilm-l6' or a causal model (engine.Engine serves encoder-decoders, which answer in words)"
            )
        keep_freed_memory()
        prepare(backbone.model)
        check_sites(backbone, sites)
        self.flat = FlatBert(backbone.model) if FlatBert.fits(backbone.model) else None
        self.backbone, self.sites = backbone, list(sites)
        self.tokens_per_batch = tokens_per_batch or tokens_that_fit(backbone, TOKENS)
        self._rows: dict[tuple[Example, int], HeadRow] = {}
        self._has_noted = False  # words without a token
        self._check_numbers()

    @torch.no_grad()
    def _check_numbers(self) -> None:
        """Read some tokens as words and as a prompt's vectors, in float32 whatever the model's type is."""
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
                f"{self.backbone.name} ({type(model).__name__}) treats its embeddings or layers in a way "
                "that this engine does not know (scaling, soft caps, adapters, hooks); use a BERT, RoBERTa, "
                "DistilBERT, ModernBERT, Llama, Qwen or GPT-2 model"
            )

    # ---- words to rows ---------------------------------------------------------------------------
    def target_row(self, example: Example, target: int = 0) -> HeadRow:
        """The example with its right answer (training, loss)."""
        if (example, target) not in self._rows:
            self._rows[example, target] = self._row(example, target)
        return self._rows[example, target]

    def option_row(self, example: Example) -> HeadRow:
        """The example with all its classes as candidate answers (scoring)."""
        row = self.target_row(example)
        every = tuple((k,) for k in range(row.num_classes))
        return HeadRow(row.text, row.positions, every, row.num_classes, row.names)

    def positions(self, example: Example, prompt_length: int, generated: int = 0) -> int:
        """How many the example takes with a prompt; nothing is generated.

        Raises: ValueError for an example that a head cannot read.
        """
        return len(self.target_row(example).text) + prompt_length

    def classes(self, example: Example) -> tuple[str, ...]:
        """Names of the classes that the head's rows stand for, in order; the same for a whole task."""
        return self.target_row(example).names

    def check_room(self, prompt_length: int) -> None:
        """Raise ValueError if the model has not that many positions."""
        if prompt_length >= self.backbone.max_positions:
            raise ValueError(
                f"a prompt of {prompt_length} vectors leaves no room for a text in the "
                f"{self.backbone.max_positions} positions of {self.backbone.name}"
            )

    def keep_contexts(self, groups: Iterable[Iterable[Example]]) -> None:
        """Nothing to keep: every token sees the prompt."""

    def _row(self, example: Example, target: int) -> HeadRow:
        if isinstance(example, TaggedExample):
            return self._tagged(example)
        if isinstance(example, SpanExample):
            return self._span(example)
        if not example.options:
            raise ValueError(
                f"{example.input[:60]!r} has neither options nor tags, but a head chooses among classes"
            )
        ids = tuple(self.backbone.tokenizer(example.input).input_ids)
        if not ids:
            raise ValueError(NO_TOKEN.format(example.input[:60]))
        label = example.options.index(example.targets[target])
        place = 0 if self.backbone.kind == "encoder" else len(ids) - 1
        return HeadRow(ids, (place,), ((label,),), len(example.options), example.options)

    def _tagged(self, example: TaggedExample) -> HeadRow:
        """The head looks at one token of each word; the others carry no label.

        The tokens are those of the running text, words with blanks between: one by one, words would lose
        the blanks that byte-level tokenizers (RoBERTa, GPT-2, Llama) make part of the tokens behind them.
        """
        coded = self._coded(" ".join(example.words))
        pieces = self.backbone.tokenizer.convert_ids_to_tokens(coded["input_ids"])
        places = _places(example.words, coded["offset_mapping"], pieces)
        read = [word for word, of in enumerate(places) if of]
        unread = tuple(word for word, of in enumerate(places) if not of)
        if unread and not self._has_noted:
            self._has_noted = True
            warnings.warn(
                f"{self.backbone.name} has no token for the word {example.words[unread[0]]!r} of "
                f"{example.input[:60]!r}; such words are not read and get the tag {OUTSIDE}",
                stacklevel=3,
            )
        if not coded["input_ids"]:
            raise ValueError(NO_TOKEN.format(example.input[:60]))
        which = 0 if self.backbone.kind == "encoder" else -1
        chosen = tuple(places[word][which] for word in read)
        classes = tuple(example.labels.index(example.tags[word]) for word in read)
        ids, labels = tuple(coded["input_ids"]), example.labels
        return HeadRow(ids, chosen or (0,), (classes,), len(labels), labels, unread=unread)

    def _coded(self, *texts: str) -> Any:
        """Tokens of one text or of two segments, and where each begins and ends in its text."""
        tokenizer = self.backbone.tokenizer
        if not tokenizer.is_fast:
            raise ValueError(
                f"the tokenizer of {self.backbone.name} ({type(tokenizer).__name__}) does not say where its "
                "tokens stand in the text, which heads on words and spans need; use a model with a "
                "tokenizer.json"
            )
        return tokenizer(*texts, return_offsets_mapping=True)

    def _span(self, example: SpanExample) -> HeadRow:
        """The head looks at every token of the passage: one score to start there, one to end there."""
        coded = self._coded(example.question, example.passage)
        offsets, part = coded["offset_mapping"], coded.sequence_ids()
        places = [i for i, owner in enumerate(part) if owner == 1]
        stop = example.start + len(example.targets[0])
        inside = [j for j, i in enumerate(places) if offsets[i][0] < stop and offsets[i][1] > example.start]
        if not inside:
            raise ValueError(f"the answer {example.targets[0]!r} of {example.question[:60]!r} has no token")
        return HeadRow(
            tuple(coded["input_ids"]),
            tuple(places),
            ((inside[0], inside[-1]),),
            2,
            is_span=True,
            types=tuple(coded.get("token_type_ids", ())),
            passage=example.passage,
            offsets=tuple(tuple(offsets[i]) for i in places),
        )

    # ---- batches ---------------------------------------------------------------------------------
    def batches(self, rows: Sequence[HeadRow], prompt_length: int) -> list[list[int]]:
        """Index lists of rows, longest first, deterministic; of similar length where they will be padded."""
        sizes = [len(row.text) + prompt_length for row in rows]
        if not self._is_flat or self.backbone.device.type != "cpu":
            return similar_batches(sizes, self.tokens_per_batch)
        order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
        return even_batches(order, sizes, [0] * len(sizes), self.tokens_per_batch)

    # ---- scores ----------------------------------------------------------------------------------
    def log_likelihoods(self, prompt: Prompt, rows: Sequence[HeadRow]) -> tuple[Tensor, Tensor]:
        """Log p(answer | text, prompt) of every candidate answer of every row.

        Args:
          prompt: with a head, and embeds or keys_values or neither; gradients flow into all of them.

        Returns:
          ([B, K] log-probabilities summed over positions, -inf where a row has fewer than K answers;
          [B, K] how many labels each sums over).
        Raises: ValueError if a row does not fit the model's positions, or the prompt has no head.
        """
        logits, row_of = self._logits(prompt, rows)  # [M, C]
        spans = [row.is_span for row in rows]
        if any(spans) and not all(spans):
            raise ValueError("rows of spans and of classes in one batch; train them in fits of their own")
        if all(spans):
            logs = over_positions(logits, row_of, len(rows))
        else:
            logs = logits.log_softmax(-1)
        size = max(len(row.answers) for row in rows)
        where, column, slot, count = [], [], [], torch.zeros(len(rows) * size, dtype=torch.long)
        start = 0
        for b, row in enumerate(rows):
            for k, answer in enumerate(row.answers):
                pairs = zip(answer, (0, 1), strict=True) if row.is_span else enumerate(answer)
                for place, label in pairs:
                    where.append(start + place)
                    column.append(label)
                    slot.append(b * size + k)
                count[b * size + k] = len(answer) or 1  # a sentence whose words all lack tokens costs 0
            start += len(row.positions)
        device = logs.device
        where, column, slot = (
            to_device(torch.tensor(of, dtype=torch.long), device) for of in (where, column, slot)
        )
        sums = logs.new_zeros(len(rows) * size).index_add(0, slot, logs[where, column])
        count = to_device(count, device)
        return sums.masked_fill(count == 0, -torch.inf).view(len(rows), -1), count.view(len(rows), -1)

    @torch.no_grad()
    def greedy(self, prompt: Prompt, rows: Sequence[HeadRow], max_tokens: Sequence[int]) -> list[str]:
        """The likeliest class of every position, as words: the tags of a sentence; of a span, its text.

        Args:
          max_tokens: not used; there are as many tags as words, and a span has at most spans.MOST_TOKENS.
        """
        logits, row_of = self._logits(prompt, rows)
        if all(row.is_span for row in rows):
            parts = logits.float().split([len(row.positions) for row in rows])
            return [best_span(row.passage, row.offsets, part) for row, part in zip(rows, parts, strict=True)]
        said: list[list[str]] = [[] for _ in rows]
        for row, label in zip(row_of.tolist(), logits.argmax(-1).tolist(), strict=True):
            said[row].append(rows[row].names[label])
        for tags, row in zip(said, rows, strict=True):
            if not row.answers[0]:  # no word has a token
                tags.clear()
            for word in row.unread:
                tags.insert(word, OUTSIDE)
        return [" ".join(tags) for tags in said]

    # ---- one forward -----------------------------------------------------------------------------
    def _logits(self, prompt: Prompt, rows: Sequence[HeadRow]) -> tuple[Tensor, Tensor]:
        """Scores of the classes [M, C] at all positions, -inf for those a task has not; their rows [M]."""
        if prompt.head is None:
            raise ValueError("the prompt has no head to choose classes with; wrap its source in WithHead")
        most, room = max(row.num_classes for row in rows), prompt.head.shape[1]
        if most > room:
            raise ValueError(
                f"a task has {most} classes, the head room for {room}; give WithHead num_classes={most}"
            )
        picked, row_of = self._picked(prompt, rows)
        device, slots = picked.device, Slots.of([len(row.positions) for row in rows], picked.device)
        states, head = slots.spread(picked.to(prompt.head.dtype)), prompt.head.transpose(1, 2)
        logits = slots.collect(torch.baddbmm(head[:, -1:], states, head[:, :-1]))
        have = to_device([row.num_classes for row in rows], device)[row_of]
        beyond = torch.arange(logits.shape[1], device=device) >= have[:, None]
        return logits.masked_fill(beyond, -torch.inf), row_of

    def _picked(
        self, prompt: Prompt, rows: Sequence[HeadRow], answers: bool = False
    ) -> tuple[Tensor, Tensor]:
        """What the model says at all positions of the rows [M, d], and their rows [M].

        Args:
          answers: scores of the whole vocabulary [M, V] in place of the last hidden states.
        """
        device, model = self.backbone.device, self.backbone.model
        memory, lines = memory_at(self.sites, prompt), self._lines(prompt, rows)
        row_of = to_device([b for b, row in enumerate(rows) for _ in row.positions], device)
        read = [[p + prompt.length * (p >= self._lead) for p in row.positions] for row in rows]
        if self._is_flat:
            flat_rows = Rows.of(lines, self._types(prompt, rows), device)
            return self.flat(flat_rows, read, prompt.embeds, memory), row_of
        with left_memory(memory):
            inputs = self._inputs(prompt, rows, lines)
            said = model(**inputs).logits if answers else model.base_model(**inputs).last_hidden_state
        return said[row_of, to_device(list(itertools.chain(*read)), device)], row_of

    @property
    def _is_flat(self) -> bool:
        """Do last hidden states come from flat_bert.py?"""
        return self.flat is not None and FlatBert.fits(self.backbone.model) and not is_observed()

    @property
    def _lead(self) -> int:
        """Tokens before a shallow prompt: an encoder's [CLS]."""
        return int(self.backbone.kind == "encoder")

    def _lines(self, prompt: Prompt, rows: Sequence[HeadRow]) -> list[tuple[int, ...]]:
        """Token ids of each row; shallow prompts stand right behind an encoder's first token."""
        check_prompt(prompt, self.backbone, self.sites)
        n, lead, limit = prompt.length, self._lead, self.backbone.max_positions
        lines = [(*row.text[:lead], *[SLOT] * n, *row.text[lead:]) for row in rows]
        size = max(map(len, lines))
        if size > limit:
            raise ValueError(
                f"prompt ({n}) + text take {size} positions, {self.backbone.name} has {limit}; shorten the "
                "texts or the prompt"
            )
        return lines

    def _types(self, prompt: Prompt, rows: Sequence[HeadRow]) -> list[tuple[int, ...]]:
        """Segments of each row's tokens, or () for a row that has none; a shallow prompt is of segment 0."""
        lead, slots = self._lead, (0,) * prompt.length
        return [(*row.types[:lead], *slots, *row.types[lead:]) if row.types else () for row in rows]

    def _inputs(
        self, prompt: Prompt, rows: Sequence[HeadRow], lines: Sequence[tuple[int, ...]]
    ) -> dict[str, Tensor]:
        """What the model is called with."""
        size = max(map(len, lines))
        pad = self.backbone.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*line, *[pad] * (size - len(line))] for line in lines])
        real = torch.arange(size) < torch.tensor([len(line) for line in lines])[:, None]
        ids, real = (to_device(t, self.backbone.device) for t in (ids, real))
        given = {"attention_mask": real.long()}
        if any(row.types for row in rows):
            kinds = [[*line, *[0] * (size - len(line))] for line in self._types(prompt, rows)]
            given["token_type_ids"] = to_device(kinds, self.backbone.device)
        if not prompt.length:
            return {**given, "input_ids": ids}
        words = self.backbone.embedding[ids.clamp(min=0)]
        vectors = words.masked_scatter((ids == SLOT)[..., None], prompt.embeds.to(words))
        return {**given, "inputs_embeds": vectors}


def _places(
    words: Sequence[str], offsets: Sequence[tuple[int, int]], pieces: Sequence[str]
) -> list[list[int]]:
    """The tokens of each word of a text that holds the words with blanks between.

    Args:
      offsets: where each token begins and ends in the text; a special token is empty.
      pieces: the tokens as the vocabulary spells them.
    Returns: W lists. A token that stands for parts of several words is in all of theirs, but not in that of a
      word whose characters are all invisible beside others that can be seen. A blank on its own, which some
      tokenizers put before a word, is in none where the word has other tokens.
    """
    owner: list[int | None] = []
    for word, text in enumerate(words):
        owner += [word] * len(text) + [None]
    visible = [of if c.isprintable() else None for of, c in zip(owner, " ".join(words), strict=False)]
    places: list[list[int]] = [[] for _ in words]
    for place, (begin, end) in enumerate(offsets):
        for word in {*visible[begin:end]} - {None} or {*owner[begin:end]} - {None}:
            places[word].append(place)
    return [[place for place in of if pieces[place].strip(BLANKS)] or of for of in places]
