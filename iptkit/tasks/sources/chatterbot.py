"""Questions and replies by topic (chatterbot-corpus)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import yaml

from iptkit.storage import archives

VERSION = 1
FOLDER = "chatterbot_corpus/data/english"
TOPICS = {
    "ai": "AI",
    "coding": "coding",
    "emotion": "emotion",
    "literature": "literature",
    "psychology": "psychology",
    "trivia": "trivia",
}


def rows(task_id: str) -> Iterator[dict]:
    """Yield question and target, which is the topic; for chatterbot-trivia the targets are the answers."""
    if task_id == "chatterbot-trivia":
        for question, *answers in _conversations("trivia"):
            yield {"question": question, "targets": [answer.rstrip(".") for answer in answers]}
        return
    for file, topic in TOPICS.items():
        for question, *_ in _conversations(file):
            yield {"question": question, "target": topic}


@cache
def _conversations(file: str) -> list[list[str]]:
    name = f"{FOLDER}/{file}.yml"
    loaded = yaml.safe_load(archives.read("chatterbot-corpus", name)[name])
    return [
        [" ".join(str(turn).split()) for turn in turns] for turns in loaded["conversations"] if len(turns) > 1
    ]
