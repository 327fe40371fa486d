"""Examples as token ids for a head: which tokens it reads, and how its classes become words again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iptkit.models.backbone import Backbone
from iptkit.tasks.examples import Example, SpanExample, TaggedExample

MOST_TOKENS = 30  # maximum length of a span (BERT's SQuAD script: max_answer_length)
NO_TOKEN = "{!r} has no token; leave it out"
BLANKS = "\u2581\u0120"  # a blank in the vocabulary of SentencePiece, and of byte-level tokenizers


@dataclass(frozen=True)
class HeadRow:
    """One example for a head.

    Attributes:
      text: token ids with their special tokens.
      positions: indices in `text` of the tokens that the head reads; (0,), with an empty answer, if no word
        has a token.
      answers: K candidate answers, each one class per position; for a span, K pairs of indices in
        `positions`.
      num_classes: number of classes of this row's task; a head may have room for more.
      names: names of the classes; empty for a span.
      is_span: the head chooses a start and an end among the positions.
      types: 0 and 1 for tokens of the first and second segment, or () for a model without segments.
      passage: text that holds a span.
      offsets: where each position's token starts and ends in the passage.
      unread: in a tagged sentence, indices of words without a token; they have no position and get the tag O.
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


def head_row(backbone: Backbone, example: Example, target: int) -> HeadRow:
    """The row of an example: a sentence with options, a sentence with tags, or a question about a passage.

    Args:
      backbone: the model that reads it.
      example: the example.
      target: index of the right answer in the targets of a sentence with options.
    Raises: ValueError if the example has neither options nor tags nor a span, or has no token.
    """
    if isinstance(example, TaggedExample):
        return _of_tags(backbone, example)
    if isinstance(example, SpanExample):
        return _of_span(backbone, example)
    if not example.options:
        raise ValueError(
            f"{example.input[:60]!r} has neither options nor tags, but a head chooses from classes; score "
            "free answers with an Engine"
        )
    ids = tuple(backbone.tokenizer(example.input).input_ids)
    if not ids:
        raise ValueError(NO_TOKEN.format(example.input[:60]))
    label = example.options.index(example.targets[target])
    position = 0 if backbone.kind == "encoder" else len(ids) - 1
    return HeadRow(ids, (position,), ((label,),), len(example.options), example.options)


def _of_tags(backbone: Backbone, example: TaggedExample) -> HeadRow:
    """The head reads one token of each word; the other tokens have no label.

    The tokens are those of the running text, words with blanks between them. One by one, words would lose the
    blanks that byte-level tokenizers (RoBERTa, GPT-2, Llama) make part of the tokens after them.
    """
    coded = _coded(backbone, " ".join(example.words))
    pieces = backbone.tokenizer.convert_ids_to_tokens(coded["input_ids"])
    tokens = _tokens_of_words(example.words, coded["offset_mapping"], pieces)
    read = [word for word, of in enumerate(tokens) if of]
    unread = tuple(word for word, of in enumerate(tokens) if not of)
    if not coded["input_ids"]:
        raise ValueError(NO_TOKEN.format(example.input[:60]))
    which = 0 if backbone.kind == "encoder" else -1
    chosen = tuple(tokens[word][which] for word in read)
    classes = tuple(example.labels.index(example.tags[word]) for word in read)
    ids, labels = tuple(coded["input_ids"]), example.labels
    return HeadRow(ids, chosen or (0,), (classes,), len(labels), labels, unread=unread)


def _of_span(backbone: Backbone, example: SpanExample) -> HeadRow:
    """The head reads every token of the passage: one score to start there, one to end there."""
    coded = _coded(backbone, example.question, example.passage)
    offsets, segments = coded["offset_mapping"], coded.sequence_ids()
    positions = [i for i, segment in enumerate(segments) if segment == 1]
    stop = example.start + len(example.targets[0])
    inside = [j for j, i in enumerate(positions) if offsets[i][0] < stop and offsets[i][1] > example.start]
    if not inside:
        raise ValueError(f"the answer {example.targets[0]!r} of {example.question[:60]!r} has no token")
    return HeadRow(
        tuple(coded["input_ids"]),
        tuple(positions),
        ((inside[0], inside[-1]),),
        2,
        is_span=True,
        types=tuple(coded.get("token_type_ids", ())),
        passage=example.passage,
        offsets=tuple(tuple(offsets[i]) for i in positions),
    )


def _coded(backbone: Backbone, *texts: str) -> Any:
    """Token ids of one text or of two segments, and where each token starts and ends in its text."""
    tokenizer = backbone.tokenizer
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer of {backbone.name} ({type(tokenizer).__name__}) does not say where its "
            "tokens stand in the text, which heads on words and spans need; use a model with a "
            "tokenizer.json"
        )
    return tokenizer(*texts, return_offsets_mapping=True)


def _tokens_of_words(
    words: Sequence[str], offsets: Sequence[tuple[int, int]], pieces: Sequence[str]
) -> list[list[int]]:
    """The tokens of each word, in a text of these words with blanks between them.

    Args:
      words: W words.
      offsets: where each token starts and ends in the text; a special token is empty.
      pieces: the tokens as the vocabulary spells them.
    Returns: W lists of token indices. A token that covers parts of several words is in the lists of all of
      them, but a word of invisible characters does not share a token with visible words. A separate blank,
      which some tokenizers put before a word, is left out if the word has other tokens.
    """
    owner: list[int | None] = []
    for index, text in enumerate(words):
        owner += [index] * len(text) + [None]
    visible = [of if c.isprintable() else None for of, c in zip(owner, " ".join(words), strict=False)]
    tokens: list[list[int]] = [[] for _ in words]
    for token, (begin, end) in enumerate(offsets):
        for word in {*visible[begin:end]} - {None} or {*owner[begin:end]} - {None}:
            if word is not None:
                tokens[word].append(token)
    return [[token for token in of if pieces[token].strip(BLANKS)] or of for of in tokens]


def best_span(passage: str, offsets: Sequence[tuple[int, int]], logits: Tensor) -> str:
    """The text between the most likely pair of start and end, with the end at or after the start.

    Args:
      passage: the text.
      offsets: P pairs, where each token starts and ends in the passage.
      logits: [P, 2] scores to start and to end there.
    """
    start, end = logits[:, 0], logits[:, 1]  # [P] each
    both = start[:, None] + end[None, :]
    order = torch.arange(len(start), device=both.device)
    far = order[None, :] - order[:, None]
    best = int(both.masked_fill((far < 0) | (far >= MOST_TOKENS), -torch.inf).argmax())
    first, last = divmod(best, len(start))
    return passage[offsets[first][0] : offsets[last][1]].strip()  # a token may start with its blank
