"""Tagging tasks made from BIG-bench: texts whose facts, answers or important words are known word for word.

    restaurants, facts     where the values of a description stand in the text (gem/e2e_nlg, gem/webnlg_en)
    dialogues              where an assistant's values stand in its sentence (gem/schema_guided_dialog)
    answers                where the answer to a question stands in a sentence (squad_shifts)
    essential words        which words of a question people marked as essential (natural_instructions)

Texts in which a value is missing or said in other words are left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from iptkit.tasks.examples import words_of
from iptkit.tasks.schemes import OUTSIDE
from iptkit.tasks.sources import bigbench, passages, recast
from iptkit.tasks.sources.records import Reader, listed

VERSION = 1
RESTAURANT = {"name": "name", "eatType": "type", "food": "food", "area": "area", "near": "near"}
KINDS = {  # the last part of a slot's name in schema_guided_dialog -> tag
    **dict.fromkeys(("time",), "time"),
    **dict.fromkeys(("date",), "date"),
    **dict.fromkeys(("price", "fare", "total", "amount", "ticket", "day", "night"), "price"),
    **dict.fromkeys(("address", "location", "city", "station", "venue", "destination"), "place"),
    **dict.fromkeys(("name", "title", "track", "artist", "album", "airlines"), "name"),
    **dict.fromkeys(("count", "tickets", "seats", "rating", "adults", "passengers"), "number"),
}
VALUE = re.compile(r'with the values "([^"]+)" for "(\w+)"')

Span = tuple[str, str]  # words, tag


def rows(task_id: str) -> Iterator[dict]:
    """Yield the rows of one of the tasks of `TASKS`; this reads the whole archive up to the task's file."""
    for _, found, _ in stream([task_id]):
        yield from found


def stream(task_ids: Collection[str]) -> Iterator[tuple[str, Iterable[dict], dict[str, str]]]:
    """Yield tasks with their rows and {"canary": ...}; see `bigbench.stream`."""
    yield from bigbench.stream(task_ids, TASKS)


def tagged(text: str, spans: Sequence[Span]) -> str:
    """Return an IOB2 tag for each word of a text, or "" if the words of a span are not in it.

    Case and marks around words do not count. Longer spans come first, and no word is in two.

    >>> tagged("The Eagle, a pub near Burger King.", [("pub", "type"), ("the eagle", "name")])
    'B-name I-name O B-type O O O'
    """
    words = [_plain(word) for word in words_of(text)]
    tags = [OUTSIDE] * len(words)
    for phrase, tag in sorted(dict.fromkeys(spans), key=lambda span: -len(words_of(span[0]))):
        wanted = [_plain(word) for word in words_of(phrase)]
        size, is_found = len(wanted), False
        for start in range(len(words) - size + 1):
            place = slice(start, start + size)
            if words[place] == wanted and set(tags[place]) == {OUTSIDE}:
                tags[place] = [f"B-{tag}", *[f"I-{tag}"] * (size - 1)]
                is_found = True
        if not is_found:
            return ""
    return " ".join(tags)


def restaurants(data: dict) -> Iterator[dict]:
    """Yield descriptions of restaurants with the places of RESTAURANT's slots."""
    for record in data["examples"]:
        facts = recast.facts_of(record)
        spans = [(facts[slot], tag) for slot, tag in RESTAURANT.items() if slot in facts]
        yield from _row(listed(record["target"])[0], spans)


def facts(data: dict) -> Iterator[dict]:
    """Yield the first text for some facts that has all their subjects and objects, with the places of both.

    What is a subject of one fact and an object of another counts as a subject.
    """
    for record in data["examples"]:
        triples = recast.triples_of(record)
        subjects = {subject for subject, *_ in triples}
        objects = {triple[-1] for triple in triples} - subjects
        spans = [(name, "subject") for name in sorted(subjects)]
        spans += [(name, "object") for name in sorted(objects)]
        found = (row for text in listed(record["target"]) for row in _row(text, spans))
        yield from list(found)[:1]


def dialogues(data: dict) -> Iterator[dict]:
    """Yield sentences of an assistant and the places of the values in them, by KINDS."""
    for record in data["examples"]:
        told = [
            (value, KINDS.get(slot.rpartition("_")[2], "")) for value, slot in VALUE.findall(record["input"])
        ]
        yield from _row(listed(record["target"])[0], [span for span in told if span[1]])


def answers(data: dict) -> Iterator[dict]:
    """Yield "question sentence" with the place of the answer, which the text has only once."""
    for row in passages.answers(data):
        text, answer = f"{row['question']} {row['sentence']}", row["targets"][0]
        for made in _row(text, [(answer, "answer")]):
            if made["target"].count("B-answer") == 1:
                yield made


def essential_words(data: dict) -> Iterator[dict]:
    """Yield questions with the words that people marked as essential."""
    for row in recast.essential_words(data):
        marked = {_plain(word) for phrase in row["target"].split(", ") for word in words_of(phrase)}
        tags = ["B-essential" if _plain(word) in marked else OUTSIDE for word in words_of(row["question"])]
        if "B-essential" in tags:
            yield {"text": row["question"], "target": " ".join(tags)}


def _row(text: str, spans: Sequence[Span]) -> Iterator[dict]:
    text = " ".join(words_of(text))
    target = tagged(text, spans) if spans else ""
    if target:
        yield {"text": text, "target": target}


def _plain(word: str) -> str:
    """Return a word in lower case without the marks around it, or as it is if it has nothing else."""
    return re.sub(r"^[^\w£$€]+|[^\w%]+$", "", word).casefold() or word


TASKS: dict[str, tuple[str, Reader]] = {
    "restaurant-tags": ("gem/e2e_nlg/task.json", restaurants),
    "fact-tags": ("gem/webnlg_en/task.json", facts),
    "dialogue-tags": ("gem/schema_guided_dialog/task.json", dialogues),
    "answer-tags-nyt": ("squad_shifts/nyt_v1.0.json", answers),
    "answer-tags-reddit": ("squad_shifts/reddit_v1.0.json", answers),
    "answer-tags-squaddev": ("squad_shifts/squaddev_v1.1.json", answers),
    "essential-tags": (
        "natural_instructions/subtask044_essential_terms_identifying_essential_words/task.json",
        essential_words,
    ),
}
