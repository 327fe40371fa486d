"""Words with tags from CoNLL files: one word a line, its tag in a column, an empty line after a sentence.

The tags of CoNLL03, OntoNotes and the like name spans by the scheme IOB2: B-x begins a span of kind x, I-x
goes on with it, O is outside. Parts of speech have no scheme.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from iptkit.examples import TaggedExample

DOCUMENT = "-DOCSTART-"
SCHEMES = ("IOB2", "none")


def read_conll(
    path: str | Path, word: int = 0, tag: int = -1, scheme: str = "IOB2", labels: Sequence[str] = ()
) -> list[TaggedExample]:
    """Read the sentences of a CoNLL file.

    Args:
      path: a text file in UTF-8; columns are separated by blanks or tabs.
      word, tag: numbers of their columns, negative ones counted from the end.
      scheme: "IOB2" (checked) or "none".
      labels: all tags of the task; () for those that occur here.
    Raises:
      FileNotFoundError: there is no such file.
      ValueError: naming file, line and way out: a line with too few columns or another number of them than
        those before, a tag outside `labels`, tags that do not follow the scheme, broken UTF-8, no sentence.
    """
    path = Path(path).expanduser()
    if scheme not in SCHEMES:
        raise ValueError(f"scheme {scheme!r} is unknown; choose one of {', '.join(SCHEMES)}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give a file with one word and its tag a line")
    sentences = [list(lines) for lines in _sentences(path, word, tag)]
    if not sentences:
        raise ValueError(f"{path} holds no sentence; every line needs a word and its tag")
    known = tuple(labels) or tuple(sorted({t for sentence in sentences for _, _, t in sentence}))
    for sentence in sentences:
        before = "O"
        for number, _, given in sentence:
            if given not in known:
                raise ValueError(f"{path}:{number}: tag {given!r} is not one of {', '.join(known)}")
            if scheme == "IOB2":
                _check(path, number, before, given)
            before = given
    return [
        TaggedExample(" ".join(w for _, w, _ in lines), (" ".join(t for _, _, t in lines),), (), known)
        for lines in sentences
    ]


def check_iob2(tags: Sequence[str], where: str = "tags") -> None:
    """Raise ValueError unless every I-x goes on with a span of kind x.

    Example:
      >>> check_iob2(["B-name", "I-name", "O"])
    """
    before = "O"
    for number, tag in enumerate(tags, 1):
        _check(where, number, before, tag)
        before = tag


def _check(path: str | Path, number: int, before: str, tag: str) -> None:
    if tag != "O" and tag[:2] not in ("B-", "I-"):
        raise ValueError(
            f'{path}:{number}: tag {tag!r} is no IOB2 tag; write B-x, I-x or O, or scheme="none"'
        )
    if tag[:2] == "I-" and before[2:] != tag[2:]:
        raise ValueError(
            f"{path}:{number}: {tag!r} follows {before!r}, but goes on with no span of its kind; begin the "
            f"span with {'B' + tag[1:]!r}"
        )


def _sentences(path: Path, word: int, tag: int) -> Iterator[list[tuple[int, str, str]]]:
    """Sentences as (line number, word, tag)."""
    needed = max(word + 1 if word >= 0 else -word, tag + 1 if tag >= 0 else -tag, 2)
    columns, lines = 0, []
    for number, line in enumerate(_lines(path), 1):
        fields = line.split()
        if not fields or fields[0] == DOCUMENT:
            if lines:
                yield lines
            lines = []
            continue
        columns = columns or len(fields)
        if len(fields) < needed or len(fields) != columns:
            raise ValueError(
                f"{path}:{number}: {len(fields)} columns, expected {max(columns, needed)}; write a word and "
                "its tag (no blanks inside), and an empty line between sentences"
            )
        lines.append((number, fields[word], fields[tag]))
    if lines:
        yield lines


def _lines(path: Path) -> list[str]:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}:{number}: not UTF-8; save the file as UTF-8") from error
