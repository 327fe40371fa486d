"""Readers of BIG-bench files whose records need more than the patterns of `records`."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from iptkit.tasks.sources.records import Reader, answers, choice, clean, labels, listed

NUM_GLOSSES = 3
QUESTION_TYPES = {
    "Date": "date",
    "Entity": "thing",
    "Event": "event",
    "Humans": "person",
    "Location": "place",
    "Organization": "organization",
    "Quantity": "quantity",
}


def statements(text: str, label: str, names: dict) -> Reader:
    """Return a reader of a classification whose records have other fields than `input` and `target`."""

    def read(data: dict) -> Iterator[dict]:
        for record in data["examples"]:
            yield {"text": clean(record[text]), "target": names[record[label]]}

    return read


def fallacies(data: dict) -> Iterator[dict]:
    """Yield the texts without their introduction, which ends with the sentence that has a label in quotes."""
    for row in labels()(data):
        yield {**row, "text": re.sub(r".*alid'[^.?!]*[.?!] ", "", row["text"])}


def glosses(data: dict) -> Iterator[dict]:
    """Yield sentences with three definitions of one group; one of them defines the word in the sentence."""
    for group in (*data["n"], *data["v"]):
        for candidate in group["candidates"]:
            gloss = candidate["definition"]
            others = sorted({other["definition"] for other in group["candidates"]} - {gloss})
            rng = random.Random(candidate["synset_name"])
            drawn = rng.sample(others, min(NUM_GLOSSES - 1, len(others)))
            for sentence, word in zip(candidate["contexts"], candidate["words_in_contexts"], strict=True):
                slots = {"sentence": " ".join(sentence.split()), "word": word}
                yield from choice(slots, [gloss, *drawn], [gloss])


def _single(reader: Reader) -> Reader:
    """Return a reader of the records with one target only."""

    def read(data: dict) -> Iterator[dict]:
        single = [record for record in data["examples"] if len(listed(record["target"])) == 1]
        yield from reader({"examples": single})

    return read


def question_types(data: dict) -> Iterator[dict]:
    """Yield questions with their answers and one of seven types, without those of several types."""
    for row in _single(answers(r"Question: (?P<question>.+\?) \(Answer: (?P<answer>.+)\)\.?"))(data):
        target = QUESTION_TYPES.get(row.pop("targets")[0])
        if target:
            yield {**row, "target": target}


def shared_words(data: dict) -> Iterator[dict]:
    """Yield pairs of sentences with all words they share, in one answer."""
    for row in answers(r"Sentence1: (?P<first>.+?)\s*Sentence2: (?P<second>.+)")(data):
        words = dict.fromkeys(word.strip().lower() for word in row.pop("targets"))
        yield {**row, "target": ", ".join(words)}


def essential_words(data: dict) -> Iterator[dict]:
    """Yield questions without their options, and the marked words that occur in them."""
    for row in answers(r"Question: (?P<question>[^(]+?)\s*\(A\).+")(data):
        marked = [word.strip(" ?.!,\"'") for word in row.pop("targets")[0].split(",")]
        words = [word for word in dict.fromkeys(marked) if word and word in row["question"]]
        if words:
            yield {**row, "target": ", ".join(words)}


def facts_of(record: dict) -> dict[str, str]:
    """Return the facts of a record of e2e_nlg: slot -> value."""
    return dict(re.findall(r"(\w[\w ]*): ([^,]+)", record["input"]))


def restaurants(slot: str = "") -> Reader:
    """Return a reader that inverts descriptions of restaurants: from a text to its facts, or one of them.

    It keeps one text for each set of facts, so that the same facts are not in train and test.
    """

    def read(data: dict) -> Iterator[dict]:
        for record in {record["input"]: record for record in data["examples"]}.values():
            facts = facts_of(record)
            target = (
                facts.get(slot) if slot else "; ".join(f"{name}: {value}" for name, value in facts.items())
            )
            if target:
                yield {"text": listed(record["target"])[0], "target": target}

    return read


def triples_of(record: dict) -> list[list[str]]:
    """Return the [subject, relation, object] triples of a record of webnlg_en."""
    triples = re.findall(r"\((.+? \| .+? \| .+?)\)(?=, \(|$)", record["input"].strip())
    return [[part.strip().strip('"').replace("_", " ") for part in triple.split(" | ")] for triple in triples]


def verbalised(data: dict) -> Iterator[dict]:
    """Yield facts as "subject | relation | object; ..." and the texts that express them."""
    for record in data["examples"]:
        facts = "; ".join(" | ".join(triple) for triple in triples_of(record))
        if facts:
            yield {"facts": facts, "targets": listed(record["target"])}


def subjects(data: dict) -> Iterator[dict]:
    """Yield the first text for some facts, and the subjects of these facts."""
    for record in data["examples"]:
        names = dict.fromkeys(subject for subject, *_ in triples_of(record))
        if names:
            yield {"text": listed(record["target"])[0], "target": "; ".join(names)}


def words(data: dict) -> Iterator[dict]:
    """Yield the words to use with commas between them."""
    for row in answers(is_sentence=True)(data):
        yield {**row, "text": ", ".join(row["text"].split())}


def tenses(data: dict) -> Iterator[dict]:
    """Yield the sentence, and the tense to put it into, which follows in capitals."""
    for row in answers(r"(?P<text>.+[.?!]) [A-Z][a-z ]+ (?P<tense>[A-Z ]+):", is_sentence=True)(data):
        yield {**row, "tense": row["tense"].lower()}
