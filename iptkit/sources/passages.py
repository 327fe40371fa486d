"""Three tasks from files in SQuAD's format: passages are cut to the sentence that holds the answer."""

import random
import re
from collections.abc import Iterator

SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[A-Z\"'(\[])|\n+")
MIN_WORDS = 4


def answers(data: dict) -> Iterator[dict]:
    """Yield sentence, question and the answers that lie in the sentence."""
    for sentence, question, found, _ in _questions(data):
        yield {"sentence": sentence, "question": question, "targets": found}


def questions(data: dict) -> Iterator[dict]:
    """Yield sentence and answer; the target is the question."""
    for sentence, question, found, _ in _questions(data):
        yield {"sentence": sentence, "answer": found[0], "target": question}


def answerable(data: dict) -> Iterator[dict]:
    """Yield question and sentence; the target says whether the sentence holds the answer.

    Each question comes once: with its own sentence, or with another one of the passage that holds none
    of the answers. Its text decides which.
    """
    for sentence, question, _, others in _questions(data):
        rng = random.Random(f"{question}/{sentence}")
        is_answered = rng.random() < 0.5
        if not is_answered and others:
            yield {"question": question, "sentence": rng.choice(others), "target": "no"}
        elif is_answered:
            yield {"question": question, "sentence": sentence, "target": "yes"}


def _questions(data: dict) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Yield sentence, question, answers in the sentence, and other sentences without any of the answers."""
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            spans = list(_sentences(context))
            for asked in paragraph["qas"]:
                ends = [(a["answer_start"], a["answer_start"] + len(a["text"])) for a in asked["answers"]]
                home = next((s for s in spans for a in ends[:1] if s[0] <= a[0] and a[1] <= s[1]), None)
                question = " ".join(asked["question"].split())
                if home is None or not question or context[slice(*home)].count(" ") + 1 < MIN_WORDS:
                    continue
                found = [_trim(context[slice(*a)]) for a in ends if home[0] <= a[0] and a[1] <= home[1]]
                every = {_trim(a["text"]).casefold() for a in asked["answers"]}
                others = [_text(context, s) for s in spans if s != home]
                others = [
                    text
                    for text in others
                    if text.count(" ") + 1 >= MIN_WORDS and not any(a in text.casefold() for a in every)
                ]
                if all(found):
                    yield _text(context, home), question, list(dict.fromkeys(found)), others


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
