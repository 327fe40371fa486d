"""Tagging schemes: how tags of single words mark spans, and their conversion to IOB2.

In named-entity recognition every word has a tag, and the tags of neighbouring words together name a span:
"Ada/B-name Lee/I-name left/O". Data sets write this in different ways. The kit detects the scheme, checks it
and converts it to IOB2, the one scheme it trains and scores.

    IOB2   B-x begins a span of kind x, I-x continues it, O is outside all spans
    IOB1   I-x begins a span; B-x is used only right after another span of kind x (CoNLL-2003)
    BIOES  like IOB2, but E-x ends a span of several words and S-x is a span of one word
    BILOU  like BIOES, with L-x for E-x and U-x for S-x
    types  x alone; neighbouring words with the same tag form one span
    none   the tags name no spans (parts of speech, for example)

A prefix without a kind (B, I) marks spans of the kind `span`. A span begins where conlleval says (Tjong Kim
Sang & De Meulder 2003, cs/0306050): at B-, and at I- after O or after another kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from iptkit.storage import messages

SCHEMES = ("IOB2", "IOB1", "BIOES", "BILOU", "types", "none")
LETTERS = {"IOB2": "BI", "IOB1": "BI", "BIOES": "BIES", "BILOU": "BILU"}
ALL_LETTERS = "BIESLU"
OUTSIDE, BARE_KIND = "O", "span"
ODD_PREFIX = re.compile(rf"[{ALL_LETTERS}][_:/|.]\w.*|\w.*[-_:/|][{ALL_LETTERS}]")  # B_PER, PER-B
SMALL = re.compile(rf"o|[{ALL_LETTERS.lower()}]-.+")  # b-per


@dataclass(frozen=True)
class Converted:
    """The tags of sentences as IOB2.

    Attributes:
      tags: the tags of each sentence; unchanged if the scheme is "none".
      scheme: the one of SCHEMES that the tags followed.
      problems: (sentence, place in it, what is wrong and how to fix it) for every bad tag.
      note: one sentence on what was converted; "" for IOB2 and "none".
    """

    tags: tuple[tuple[str, ...], ...]
    scheme: str
    problems: tuple[tuple[int, int, str], ...] = ()
    note: str = ""


def convert(sentences: Sequence[Sequence[str]], scheme: str = "auto") -> Converted:
    """Return the tags converted to IOB2, or their problems.

    Args:
      sentences: for each sentence a tag for every word.
      scheme: one of SCHEMES, or "auto" to detect it from all tags together: with the prefixes B- and I- only
        it is IOB2, or IOB1 if some I- begins a span; without prefixes it is "types" if O occurs, else "none".
    Raises: ValueError for an unknown scheme.

    Example:
      >>> convert([["I-PER", "I-PER", "O", "I-LOC"]]).tags
      (('B-PER', 'I-PER', 'O', 'B-LOC'),)
    """
    if scheme not in ("auto", *SCHEMES):
        raise ValueError(f"scheme {scheme!r} is unknown; choose one of auto, {', '.join(SCHEMES)}")
    given = tuple(map(tuple, sentences))
    is_auto, scheme = scheme == "auto", find(given) if scheme == "auto" else scheme
    if scheme == "none":
        is_small = is_auto and any(map(len, given)) and all(SMALL.fullmatch(t) for of in given for t in of)
        text = "tag {!r} has a lower-case prefix; write B-x, I-x and O" if is_small else ""
        small = [(s, i, text.format(t)) for s, tags in enumerate(given) for i, t in enumerate(tags) if text]
        return Converted(given, scheme, tuple(small))
    check = {"IOB2": _check_iob2, "BIOES": _check_ends, "BILOU": _check_ends}.get(scheme, _check_form)
    problems = [(s, *found) for s, tags in enumerate(given) for found in check(tags, scheme)]
    if is_auto and scheme == "types":
        problems += [
            (s, place, f"tag {tag!r} looks like a prefix and a kind in another notation; write B-x and I-x")
            for s, tags in enumerate(given)
            for place, tag in enumerate(tags)
            if ODD_PREFIX.fullmatch(tag)
        ]
    if problems:
        return Converted(given, scheme, tuple(problems))
    tags = tuple(_as_iob2(tags, scheme) for tags in given)
    return Converted(tags, scheme, note="" if tags == given else _note(scheme, given, tags))


def find(sentences: Sequence[Sequence[str]]) -> str:
    """Return the scheme that the tags follow or were most likely meant to follow; see `convert`."""
    every = {tag for tags in sentences for tag in tags}
    kinds = every - {OUTSIDE}
    has_prefix = any(re.match(rf"[{ALL_LETTERS}]-.", tag) for tag in kinds)
    if not has_prefix and not (kinds and kinds <= set(ALL_LETTERS)):
        return "types" if OUTSIDE in every else "none"
    letters = {tag[0] for tag in kinds if tag[1:2] in ("", "-")}
    if letters & set("LU"):
        return "BILOU"
    if letters & set("ES"):
        return "BIOES"
    return "IOB1" if any(_opens(tags) for tags in sentences) else "IOB2"


def is_iob2(tag: str) -> bool:
    """Return whether the tag is O, B-x or I-x."""
    return tag == OUTSIDE or (tag[:2] in ("B-", "I-") and len(tag) > 2)


def iob2_labels(labels: Iterable[str], scheme: str) -> tuple[str, ...]:
    """Return the IOB2 labels of a task whose labels follow `scheme`.

    IOB2 labels are returned as they are; otherwise the result is O (if it is among them) and B-x and I-x for
    every kind x.
    """
    labels = tuple(labels)
    if scheme == "none":
        return labels
    has_begin = all("B" + tag[1:] in labels for tag in labels if tag[:2] == "I-")
    if scheme != "types" and has_begin and all(map(is_iob2, labels)):
        return labels
    kinds = dict.fromkeys(_parts(tag, scheme)[1] for tag in labels if tag != OUTSIDE)
    outside = [OUTSIDE] if OUTSIDE in labels else []
    return (*outside, *(f"{letter}-{kind}" for kind in kinds for letter in "BI"))


def check_iob2(tags: Sequence[str], where: str = "tags") -> None:
    """Raise ValueError with the problems if the tags are not IOB2 or some I-x continues no span of kind x.

    Example:
      >>> check_iob2(["B-name", "I-name", "O"])
    """
    found = [f"{where}:{place + 1}: {problem}" for place, problem in _check_iob2(tags, "IOB2")]
    if found:
        raise ValueError("\n".join(messages.first(found)))


def read(
    sentences: Sequence[Sequence[str]],
    labels: Sequence[str],
    scheme: str,
    where: Callable[[int, int], str],
) -> tuple[Converted, tuple[str, ...]]:
    """Return the tags of a data set as IOB2, and all labels of the task.

    Args:
      sentences: for each sentence a tag for every word.
      labels: all tags of the task, in its own scheme or as IOB2; () for the tags that occur. With O among
        them, tags without prefixes are of the scheme "types" even if no sentence has an O.
      scheme: see `convert`.
      where: returns the name of a place, given the sentence and the word.
    Raises: ValueError that counts the bad tags and lists the first 20 with their places.
    """
    if scheme == "auto" and find(sentences) == "none" and find([labels]) == "types":
        scheme = "types"  # in these sentences, every word happens to be in a span
    made = convert(sentences, scheme)
    problems = list(made.problems)
    known = iob2_labels(labels, made.scheme) or tuple(sorted({tag for tags in made.tags for tag in tags}))
    if not problems:
        problems = [
            (s, place, f"tag {sentences[s][place]!r} is not one of the labels: {', '.join(known)}")
            for s, tags in enumerate(made.tags)
            for place, tag in enumerate(tags)
            if tag not in known
        ]
    if problems:
        lines = [f"{where(s, place)}: {problem}" for s, place, problem in problems]
        raise ValueError(f"{len(lines)} bad tag(s):\n" + "\n".join(messages.first(lines)))
    return made, known


# ---- one sentence --------------------------------------------------------------------------------
def _parts(tag: str, scheme: str) -> tuple[str, str]:
    """Return prefix and kind."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    return ("I", tag) if scheme == "types" else (tag[0], tag[2:] or BARE_KIND)


def _as_iob2(tags: Sequence[str], scheme: str) -> tuple[str, ...]:
    out, before = [], (OUTSIDE, "")
    for tag in tags:
        letter, kind = _parts(tag, scheme)
        begins = letter in "BSU" or before[0] in "ESLU" or kind != before[1]
        out.append(OUTSIDE if letter == OUTSIDE else f"{'B' if begins else 'I'}-{kind}")
        before = letter, kind
    return tuple(out)


def _opens(tags: Sequence[str]) -> list[int]:
    """Return the places where I- begins a span."""
    pairs = zip((OUTSIDE, *tags), tags, strict=False)
    continues = [before != OUTSIDE and before[1:] == tag[1:] for before, tag in pairs]
    return [i for i, tag in enumerate(tags) if tag[:1] == "I" and not continues[i]]


def _check_form(tags: Sequence[str], scheme: str) -> list[tuple[int, str]]:
    """Return the problems of tags that are not in the scheme."""
    letters = LETTERS.get(scheme)
    if letters is None:
        return []
    return [
        (
            place,
            f"tag {tag!r} is not {_a(scheme)} tag; write {_forms(letters)}, or name another "
            "scheme (on the card, or scheme= in Python)",
        )
        for place, tag in enumerate(tags)
        if tag != OUTSIDE and not (tag[0] in letters and (len(tag) == 1 or (tag[1] == "-" and tag[2:])))
    ]


def _a(scheme: str) -> str:
    return f"{'an' if scheme[0] == 'I' else 'a'} {scheme}"


def _forms(letters: str) -> str:
    return ", ".join(f"{letter}-x" for letter in letters) + f" or {OUTSIDE}"


def _check_iob2(tags: Sequence[str], scheme: str) -> list[tuple[int, str]]:
    found = dict(_check_form(tags, scheme))
    for place in _opens(tags):
        before = tags[place - 1] if place else OUTSIDE
        problem = f"{tags[place]!r} follows {before!r}, but there is no span of its kind to continue"
        found.setdefault(place, f"{problem}; begin the span with {'B' + tags[place][1:]!r}")
    return sorted(found.items())


def _check_ends(tags: Sequence[str], scheme: str) -> list[tuple[int, str]]:
    """Return the problems of BIOES and BILOU tags: a span continues after B- and I-, and only there."""
    found = dict(_check_form(tags, scheme))
    last, single = ("E", "S") if scheme == "BIOES" else ("L", "U")
    for place, (tag, after) in enumerate(zip(tags, (*tags[1:], OUTSIDE), strict=True)):
        before = tags[place - 1] if place else OUTSIDE
        if tag[0] in ("I", last) and not (before[0] in "BI" and before[1:] == tag[1:]):
            problem = f"{tag!r} follows {before!r}, but there is no span of its kind to continue"
            found.setdefault(place, f"{problem}; begin the span with {'B' + tag[1:]!r}")
        if tag[0] in "BI" and not (after[0] in ("I", last) and after[1:] == tag[1:]):
            problem = f"the span of {tag!r} has no end before {after!r}"
            found.setdefault(
                place, f"{problem}; end it with {last + tag[1:]!r}, or tag a single word {single + tag[1:]!r}"
            )
    return sorted(found.items())


def _note(scheme: str, given: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> str:
    spans = sum(tag[0] == "B" for of in tags for tag in of)
    if scheme == "types":
        return f"tags without prefixes were converted to IOB2: equal neighbours form one span ({spans} spans)"
    opened = sum(len(_opens(of)) for of in given)
    if scheme == "IOB1":
        return f"IOB1 was converted to IOB2: {opened} of {spans} spans began with I-"
    if scheme == "IOB2":
        return f"prefixes without a kind were read as spans of one kind, {BARE_KIND!r} ({spans} spans)"
    return f"{scheme} was converted to IOB2 ({spans} spans)"
