"""Readers of files in SQuAD's format: passages are cut to the sentence with the answer."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[A-Z\"'(\[])|\n+")
MIN_WORDS = 4


def answers(data: dict) -> Iterator[dict]:
    """Yield sentence, question and the answers that occur in the sentence."""
    for sentence, question, found, _ in _questions(data):
        yield {"sentence": sentence, "question": question, "targets": found}


def questions(data: dict) -> Iterator[dict]:
    """Yield sentence and answer; the target is the question."""
    for sentence, question, found, _ in _questions(data):
        yield {"sentence": sentence, "answer": found[0], "target": question}


def answerable(data: dict) -> Iterator[dict]:
    """Yield question and sentence; the target says whether the sentence has the answer.

    Each question comes once: with its own sentence, or with another sentence of the passage that has none of
    the answers. The draw depends only on question and sentence.
    """
    for sentence, question, _, others in _questions(data):
        rng = random.Random(f"{question}/{sentence}")
        is_answered = rng.random() < 0.5
        if not is_answered and others:
            yield {"question": question, "sentence": rng.choice(others), "target": "no"}
        elif is_answered:
            yield {"question": question, "sentence": sentence, "target": "yes"}


def _questions(data: dict) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Yield sentence, question, answers in the sentence, and other sentences without any of the answers.

    The sentence is that of the first answer. Answers that are not where the file says they are are left out.
    """
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            spans = list(_sentences(context))
            for asked in paragraph["qas"]:
                question = " ".join(asked["question"].split())
                answers = [
                    (a["answer_start"], a["answer_start"] + len(a["text"]))
                    for a in asked["answers"]
                    if context.startswith(a["text"], a["answer_start"]) and _trim(a["text"])
                ]
                home = next((span for span in spans if answers and _holds(span, answers[0])), None)
                if home is None or not question or _num_words(_text(context, home)) < MIN_WORDS:
                    continue
                found = dict.fromkeys(_trim(context[slice(*a)]) for a in answers if _holds(home, a))
                texts = [_trim(a["text"]).casefold() for a in asked["answers"]]
                others = [
                    text
                    for text in (_text(context, span) for span in spans if span != home)
                    if _num_words(text) >= MIN_WORDS and not any(a in text.casefold() for a in texts)
                ]
                yield _text(context, home), question, list(found), others


def _holds(span: tuple[int, int], inner: tuple[int, int]) -> bool:
    return span[0] <= inner[0] and inner[1] <= span[1]


def _num_words(text: str) -> int:
    return len(text.split())


def _sentences(context: str) -> Iterator[tuple[int, int]]:
    start = 0
    for end in SENTENCE_END.finditer(context):
        yield start, end.end()
        start = end.end()
    yield start, len(context)


def _text(context: str, span: tuple[int, int]) -> str:
    return " ".join(context[slice(*span)].split())


def _trim(answer: str) -> str:
    return " ".join(answer.split()).rstrip(".,;:")
