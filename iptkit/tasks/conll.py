"""Words with tags from CoNLL files: one word a line, its tag in a column, an empty line after a sentence.

Tags that name spans are read in any scheme of schemes.py and handed out as IOB2. Parts of speech have none.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from iptkit.storage import messages, paths, reading
from iptkit.tasks import schemes
from iptkit.tasks.examples import TaggedExample, words_of

DOCUMENT = "-DOCSTART-"
Line = tuple[int, str, str]  # its number, a word and its tag


def read_conll(
    path: str | Path,
    word: int = 0,
    tag: int = -1,
    scheme: str = "auto",
    labels: Sequence[str] = (),
    comment: str = "",
) -> list[TaggedExample]:
    """Read the sentences of a CoNLL file; span tags come out as IOB2, with a warning if they were not.

    Args:
      path: a text file in UTF-8; columns end at blanks or tabs, lines at a line feed and nowhere else.
      word, tag: numbers of their columns, negative ones counted from the end.
      scheme: one of schemes.SCHEMES, "none" for tags that name no spans; "auto" finds it (schemes.convert).
      labels: all tags of the task, in the file's scheme or as IOB2; () for those that occur here.
      comment: lines before a sentence that begin so are left out, "#" for instance; "" for none.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: an unknown scheme, or the first twenty problems by file and line and how many there are: a
        line with too few columns or another number of them than those before, a tag outside `labels`, tags
        that do not follow the scheme, broken UTF-8, no sentence.
    """
    path = paths.expanded(path)
    sentences = _sentences(path, word, tag, comment)
    tags = [[t for _, _, t in lines] for lines in sentences]
    made, known = schemes.read(tags, labels, scheme, lambda s, i: f"{path}:{sentences[s][i][0]}")
    if made.note:
        warnings.warn(f"{path}: {made.note}", stacklevel=2)
    return [
        TaggedExample(" ".join(w for _, w, _ in lines), (" ".join(of),), (), known)
        for lines, of in zip(sentences, made.tags, strict=True)
    ]


def _sentences(path: Path, word: int, tag: int, comment: str) -> list[list[Line]]:
    needed = max(word + 1 if word >= 0 else -word, tag + 1 if tag >= 0 else -tag, 2)
    sentences: list[list[Line]] = [[]]
    columns, problems = 0, []
    text = reading.read_text(path, "give a file with one word and its tag a line")
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        fields = words_of(line)
        if not fields or fields[0] == DOCUMENT:
            sentences.append([])
            continue
        if comment and line.startswith(comment) and not sentences[-1]:
            continue
        columns = columns or len(fields)
        if "\r" in line:
            problems.append(
                f"{path}:{number}: a carriage return inside a line; save with line feeds as line ends"
            )
        elif len(fields) < needed or len(fields) != columns:
            way = f"; comments are left out with comment={line[0]!r}" if line[0] in "#%" else ""
            problems.append(
                f"{path}:{number}: {len(fields)} columns, expected {max(columns, needed)}; write a word and "
                f"its tag (no blanks inside), and an empty line between sentences{way}"
            )
        else:
            sentences[-1].append((number, fields[word], fields[tag]))
    messages.refuse(path, problems)
    sentences = [lines for lines in sentences if lines]
    if not sentences:
        raise ValueError(f"{path} holds no sentence; every line needs a word and its tag")
    return sentences
