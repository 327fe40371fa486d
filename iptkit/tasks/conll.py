"""Tagged sentences from CoNLL files: one word per line, its tag in a column, an empty line between sentences.

Span tags (as in named-entity recognition) may follow any scheme of schemes.py and are converted to IOB2. Tags
that name no spans, such as parts of speech, are read as they are.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from iptkit.storage import messages, paths, reading
from iptkit.tasks import schemes
from iptkit.tasks.examples import TaggedExample, words_of

DOCUMENT = "-DOCSTART-"
Line = tuple[int, str, str]  # line number, word, tag


def read_conll(
    path: str | Path,
    word: int = 0,
    tag: int = -1,
    scheme: str = "auto",
    labels: Sequence[str] = (),
    comment: str = "",
) -> list[TaggedExample]:
    """Return the sentences of a CoNLL file with their tags; span tags are converted to IOB2, with a warning.

    Args:
      path: a text file in UTF-8. Columns are separated by spaces or tabs, lines by line feeds only.
      word: column of the word, from 0; negative numbers count from the end.
      tag: column of the tag, likewise.
      scheme: one of schemes.SCHEMES, "none" for tags that name no spans, or "auto" to detect the scheme (see
        `schemes.convert`).
      labels: all tags of the task, in the file's scheme or as IOB2; () for the tags that occur in the file.
      comment: lines before a sentence that start with this are skipped, for example "#"; "" for none.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the scheme is unknown or the file has problems. The message counts them and lists the first
        20 by line: a line with too few columns or a different number of columns than most lines, a tag
        outside `labels`, tags that break the scheme, broken UTF-8, or no sentence.
    """
    path = paths.expanded(path)
    found = sentences(path, word, tag, comment)
    tags = [[t for _, _, t in lines] for lines in found]
    made, known = schemes.read(tags, labels, scheme, lambda s, i: f"{path}:{found[s][i][0]}")
    if made.note:
        warnings.warn(f"{path}: {made.note}", stacklevel=2)
    return [
        TaggedExample(" ".join(w for _, w, _ in lines), (" ".join(of),), (), known)
        for lines, of in zip(found, made.tags, strict=True)
    ]


def sentences(path: str | Path, word: int, tag: int, comment: str) -> list[list[Line]]:
    """Return the lines of every sentence of a CoNLL file; arguments and errors are those of `read_conll`."""
    needed = max(word + 1 if word >= 0 else -word, tag + 1 if tag >= 0 else -tag, 2)
    found: list[list[Line]] = [[]]
    problems: list[str] = []
    text = reading.read_text(path, "give a file with one word and its tag per line")
    columns = max(_usual_columns(text), needed)
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        fields = words_of(line)
        if not fields or fields[0] == DOCUMENT:
            found.append([])
            continue
        if comment and line.startswith(comment) and not found[-1]:
            continue
        if "\r" in line:
            problems.append(
                f"{path}:{number}: there is a carriage return inside the line; save the file with line feeds "
                "as line ends"
            )
        elif len(fields) != columns:
            way = f"; skip comments with comment={line[0]!r}" if line[0] in "#%" else ""
            problems.append(
                f"{path}:{number}: the line has {len(fields)} column(s), but needs {columns}; "
                "write a word and its tag (without blanks inside), and an empty line between sentences" + way
            )
        else:
            found[-1].append((number, fields[word], fields[tag]))
    messages.refuse(path, problems)
    found = [lines for lines in found if lines]
    if not found:
        raise ValueError(f"{path} has no sentence; write a word and its tag on every line")
    return found


def _usual_columns(text: str) -> int:
    """The number of columns that most lines of a text have; 0 for a text without lines."""
    counts = Counter(len(fields) for line in text.split("\n") if (fields := words_of(line)))
    return counts.most_common(1)[0][0] if counts else 0
