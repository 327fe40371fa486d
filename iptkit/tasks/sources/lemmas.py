"""Inflected forms of English words (lemminflect)."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from iptkit.storage import archives

VERSION = 1
FILE = "lemminflect/resources/infl_lu.csv.gz"


def rows(task_id: str) -> Iterator[dict]:
    """Yield adjective and targets, its comparatives; adjectives without one-word comparative are left out."""
    for line in gzip.decompress(archives.read("lemminflect", FILE)[FILE]).decode("utf-8").splitlines():
        word, kind, *forms = line.split(",")
        if kind == "adj" and forms[0] and word.isalpha() and word.islower():
            yield {"adjective": word, "targets": forms[0].split("/")}
