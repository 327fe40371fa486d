"""Sentences of four domains, rated by people from -4 to 4 (vaderSentiment, Hutto and Gilbert 2014)."""

from __future__ import annotations

import html
import io
import tarfile
from collections.abc import Iterator
from functools import cache

from iptkit.storage import archives

VERSION = 1
BUNDLE = "additional_resources/hutto_ICWSM_2014.tar.gz"
FILES = {
    "vader-tweets": "tweets",
    "vader-movieReviewSnippets": "movieReviewSnippets",
    "vader-amazonReviewSnippets": "amazonReviewSnippets",
    "vader-nytEditorialSnippets": "nytEditorialSnippets",
}


def rows(task_id: str) -> Iterator[dict]:
    """Yield text and target: negative for mean ratings up to -1, positive from 1; others are left out."""
    for line in _texts()[FILES[task_id]].splitlines():
        _, rating, text = line.split("\t", 2)
        if abs(float(rating)) >= 1:
            text = " ".join(html.unescape(text).split())
            yield {"text": text, "target": "positive" if float(rating) > 0 else "negative"}


@cache
def _texts() -> dict[str, str]:
    bundle = archives.read("vaderSentiment", BUNDLE)[BUNDLE]
    texts = {}
    with tarfile.open(fileobj=io.BytesIO(bundle), mode="r:gz") as inner:
        for name in FILES.values():
            file = inner.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
            assert file, "the archive is pinned by its hash"
            texts[name] = file.read().decode("utf-8")
    return texts
