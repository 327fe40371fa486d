"""Tags that name spans of words: which scheme they follow, and the same spans as IOB2.

    IOB2   B-x begins a span of kind x, I-x goes on with it, O is outside (what the kit trains and scores)
    IOB1   I-x begins a span; B-x does so only right behind another span of kind x (CoNLL-2003)
    BIOES  as IOB2, but E-x ends a span of several words and S-x is a span of one
    BILOU  as BIOES, with L-x for E-x and U-x for S-x
    types  x alone; neighbours with the same tag are one span
    none   the tags name no spans, as parts of speech

A prefix without a kind (B, I, O) names spans of the kind `span`. Where a span begins is conlleval's rule
(Tjong Kim Sang & De Meulder 2003, cs/0306050): at B-, and at I- behind O or behind another kind.
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
      tags: those of each sentence; of scheme "none" as they were.
      scheme: the one of SCHEMES that they followed.
      problems: (sentence, place in it, what is wrong and the way out) of every bad tag.
      note: what was converted, in words; "" for IOB2 and "none".
    """

    tags: tuple[tuple[str, ...], ...]
    scheme: str
    problems: tuple[tuple[int, int, str], ...] = ()
    note: str = ""


def convert(sentences: Sequence[Sequence[str]], scheme: str = "auto") -> Converted:
    """Read tags as spans and write them as IOB2.

    Args:
      sentences: a tag for every word.
      scheme: one of SCHEMES, or "auto" for the one that all tags together follow: with B- and I- alone IOB2,
        or IOB1 where I- begins a span; without prefixes "types" if O occurs, else "none".
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
        told = "tag {!r} has a prefix in small letters; write B-x, I-x and O" if is_small else ""
        small = [(s, i, told.format(t)) for s, tags in enumerate(given) for i, t in enumerate(tags) if told]
        return Converted(given, scheme, tuple(small))
    check = {"IOB2": _check_iob2, "BIOES": _check_ends, "BILOU": _check_ends}.get(scheme, _check_form)
    problems = [(s, *found) for s, tags in enumerate(given) for found in check(tags, scheme)]
    if is_auto and scheme == "types":
        problems += [
            (s, place, f"tag {tag!r} looks like a prefix that is written another way; write B-x and I-x")
            for s, tags in enumerate(given)
            for place, tag in enumerate(tags)
            if ODD_PREFIX.fullmatch(tag)
        ]
    if problems:
        return Converted(given, scheme, tuple(problems))
    tags = tuple(_as_iob2(tags, scheme) for tags in given)
    return Converted(tags, scheme, note="" if tags == given else _note(scheme, given, tags))


def find(sentences: Sequence[Sequence[str]]) -> str:
    """The scheme of SCHEMES that tags follow, or the one that most likely was meant; see `convert`."""
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
    """Is it O, B-x or I-x?"""
    return tag == OUTSIDE or (tag[:2] in ("B-", "I-") and len(tag) > 2)


def iob2_labels(labels: Iterable[str], scheme: str) -> tuple[str, ...]:
    """A task's labels, of a scheme, as IOB2: themselves if they are, else O and B-x and I-x of every kind."""
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
    """Raise ValueError with all that is wrong unless every I-x goes on with a span of kind x.

    Example:
      >>> check_iob2(["B-name", "I-name", "O"])
    """
    found = [f"{where}:{place + 1}: {told}" for place, told in _check_iob2(tags, "IOB2")]
    if found:
        raise ValueError("\n".join(messages.first(found)))


def read(
    sentences: Sequence[Sequence[str]],
    labels: Sequence[str],
    scheme: str,
    where: Callable[[int, int], str],
) -> tuple[Converted, tuple[str, ...]]:
    """The tags of a data set as IOB2, and all tags of the task.

    Args:
      sentences, scheme: see `convert`.
      labels: all tags of the task, in its own scheme or as IOB2; () for those that occur. With O among them
        bare types are of the scheme "types" though no O occurs.
      where: names the place of a sentence's tag.
    Raises: ValueError that lists the first twenty bad tags, with their places, and how many there are.
    """
    if scheme == "auto" and find(sentences) == "none" and find([labels]) == "types":
        scheme = "types"  # every word of these sentences happens to be in a span
    made = convert(sentences, scheme)
    problems = list(made.problems)
    known = iob2_labels(labels, made.scheme) or tuple(sorted({tag for tags in made.tags for tag in tags}))
    if not problems:
        problems = [
            (s, place, f"tag {sentences[s][place]!r} is not one of {', '.join(known)}")
            for s, tags in enumerate(made.tags)
            for place, tag in enumerate(tags)
            if tag not in known
        ]
    if problems:
        told = [f"{where(s, place)}: {told}" for s, place, told in problems]
        raise ValueError(f"{len(told)} bad tag(s):\n" + "\n".join(messages.first(told)))
    return made, known


# ---- one sentence --------------------------------------------------------------------------------
def _parts(tag: str, scheme: str) -> tuple[str, str]:
    """Prefix and kind."""
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
    """The places where I- begins a span."""
    pairs = zip((OUTSIDE, *tags), tags, strict=False)
    goes_on = [before != OUTSIDE and before[1:] == tag[1:] for before, tag in pairs]
    return [i for i, tag in enumerate(tags) if tag[:1] == "I" and not goes_on[i]]


def _check_form(tags: Sequence[str], scheme: str) -> list[tuple[int, str]]:
    """What is no tag of the scheme."""
    letters = LETTERS.get(scheme)
    if letters is None:
        return []
    return [
        (place, f"tag {tag!r} is no {scheme} tag; write {_forms(letters)}, or give another scheme")
        for place, tag in enumerate(tags)
        if tag != OUTSIDE and not (tag[0] in letters and (len(tag) == 1 or (tag[1] == "-" and tag[2:])))
    ]


def _forms(letters: str) -> str:
    return ", ".join(f"{letter}-x" for letter in letters) + f" or {OUTSIDE}"


def _check_iob2(tags: Sequence[str], scheme: str) -> list[tuple[int, str]]:
    found = dict(_check_form(tags, scheme))
    for place in _opens(tags):
        before = tags[place - 1] if place else OUTSIDE
        told = (
            f"{tags[place]!r} follows {before!r}, but goes on with no span of its kind; begin the span with "
            f"{'B' + tags[place][1:]!r}"
        )
        found.setdefault(place, told)
    return sorted(found.items())


def _check_ends(tags: Sequence[str], scheme: str) -> list[tuple[int, str]]:
    """BIOES and BILOU say where a span ends: B- and I- go on, all others do not."""
    found = dict(_check_form(tags, scheme))
    last, single = ("E", "S") if scheme == "BIOES" else ("L", "U")
    for place, (tag, after) in enumerate(zip(tags, (*tags[1:], OUTSIDE), strict=True)):
        before = tags[place - 1] if place else OUTSIDE
        if tag[0] in ("I", last) and not (before[0] in "BI" and before[1:] == tag[1:]):
            told = f"{tag!r} follows {before!r}, but goes on with no span of its kind"
            found.setdefault(place, f"{told}; begin it with {'B' + tag[1:]!r}")
        if tag[0] in "BI" and not (after[0] in ("I", last) and after[1:] == tag[1:]):
            told = f"the span of {tag!r} has no end before {after!r}"
            found.setdefault(
                place, f"{told}; end it with {last + tag[1:]!r}, a single word is {single + tag[1:]!r}"
            )
    return sorted(found.items())


def _note(scheme: str, given: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> str:
    spans = sum(tag[0] == "B" for of in tags for tag in of)
    if scheme == "types":
        return f"bare types were converted to IOB2: neighbours with the same tag are one span ({spans} spans)"
    opened = sum(len(_opens(of)) for of in given)
    if scheme == "IOB1":
        return f"IOB1 was converted to IOB2: {opened} of {spans} spans began with I-"
    if scheme == "IOB2":
        return f"prefixes without a kind are read as spans of one kind, {BARE_KIND!r} ({spans} spans)"
    return f"{scheme} was converted to IOB2 ({spans} spans)"
