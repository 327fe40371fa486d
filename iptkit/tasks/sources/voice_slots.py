"""Voice commands with tagged rooms, devices and amounts, from the templates of `intents`."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from iptkit.tasks.examples import words_of
from iptkit.tasks.schemes import OUTSIDE
from iptkit.tasks.sources import intents

VERSION = 1
NUM_PER_INTENT, MAX_TRIES = 160, 4000
SLOTS = {  # list of the package -> tag
    "area": "room",
    "floor": "floor",
    "name": "device",
    "shopping_list_item": "item",
    "todo_list_item": "item",
    "timer_name": "timer",
    "timer_command": "command",
    "color": "color",
}
FIRST, LAST = "\ue000", "\ue001"  # around the words of a slot, with its tag before them


class _Tagging(intents.Sampler):
    """Draws one sentence with marks around the words of its slots."""

    def slot(self, name: str) -> str:
        tag, words = self._tag(name.split(":")[0]), super().slot(name)
        return f"{FIRST}{tag}={words}{LAST}" if tag else words

    def _tag(self, name: str) -> str:
        """Return the tag of a list of the package; all numbers are amounts, lists without a tag have ""."""
        if name == "name" and set(self.names) <= set(intents.NAMES["todo"]):
            return "list"
        is_number = "range" in self.data["lists"].get(name, {})
        return SLOTS.get(name, "amount" if is_number else "")


def rows(task_id: str) -> Iterator[dict]:
    """Yield text and target (a tag for each word), with up to 160 sentences per intent that have a slot."""
    data = intents.templates()
    for intent in intents.INTENTS:
        rng = random.Random(f"{task_id}/{intent}")
        blocks = [block for block in data["intents"][intent]["data"] if intents.names_for(block)]
        found: dict[str, str] = {}
        for _ in range(MAX_TRIES):
            block = rng.choice(blocks)
            sampler = _Tagging(data, intents.names_for(block), rng)
            text, target = _split(sampler.sample(rng.choice(block["sentences"])))
            if "B-" in target:
                found.setdefault(text, target)
            if len(found) == NUM_PER_INTENT:
                break
        yield from ({"text": text, "target": target} for text, target in found.items())


def _split(sentence: str) -> tuple[str, str]:
    """Return the words of a sentence with marks and their IOB2 tags; "35-hour" is one word, an amount."""
    text, spans = "", []
    for i, part in enumerate(re.split(f"{FIRST}(.*?){LAST}", sentence)):
        tag, _, words = part.partition("=") if i % 2 else ("", "", part)
        spans += [(tag, len(text), len(text) + len(words))] if tag else []
        text += words
    words, tags, end = words_of(text), [], 0
    for word in words:
        start = text.index(word, end)
        end = start + len(word)
        at = next(((tag, first) for tag, first, last in spans if first < end and start < last), None)
        tags.append(OUTSIDE if at is None else f"{'B' if at[1] >= start else 'I'}-{at[0]}")
    return " ".join(words), " ".join(tags)
