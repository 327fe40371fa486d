"""Addresses and names of people and companies with hand-labelled parts (usaddress, probablepeople)."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import groupby

from iptkit.storage import archives
from iptkit.tasks.examples import words_of

VERSION = 1
FILES = {
    "usaddress-tagging": ("usaddress", "training/labeled.xml"),
    "probablepeople-person": ("probablepeople", "name_data/labeled/person_labeled.xml"),
    "probablepeople-company": ("probablepeople", "name_data/labeled/company_labeled.xml"),
}
WORDS = {"address-tags": "usaddress-tagging"} | {
    f"{kind}-tags": f"probablepeople-{kind}" for kind in ("person", "company")
}
TAGS = {
    "AddressNumber": "number",
    "AddressNumberPrefix": "number",
    "AddressNumberSuffix": "number",
    "StreetNamePreDirectional": "direction",
    "StreetNamePostDirectional": "direction",
    "StreetName": "street",
    "StreetNamePreType": "street type",
    "StreetNamePostType": "street type",
    "StreetNamePreModifier": "street",
    "StreetNamePostModifier": "street",
    "PlaceName": "city",
    "StateName": "state",
    "ZipCode": "zip",
    "OccupancyType": "unit type",
    "OccupancyIdentifier": "unit",
    "Recipient": "recipient",
    "USPSBoxType": "box type",
    "USPSBoxID": "box",
    "USPSBoxGroupType": "box group type",
    "USPSBoxGroupID": "box group",
    "BuildingName": "building",
    "SubaddressType": "part type",
    "SubaddressIdentifier": "part",
    "LandmarkName": "landmark",
    "CountryName": "country",
    "CornerOf": "corner",
    "IntersectionSeparator": "and",
    "GivenName": "given name",
    "Surname": "surname",
    "MiddleName": "middle name",
    "MiddleInitial": "middle initial",
    "FirstInitial": "first initial",
    "LastInitial": "last initial",
    "PrefixMarital": "title",
    "PrefixOther": "title",
    "SuffixGenerational": "suffix",
    "SuffixOther": "suffix",
    "Nickname": "nickname",
    "And": "and",
    "CorporationName": "name",
    "CorporationNameOrganization": "organization",
    "CorporationLegalType": "legal type",
    "CorporationCommitteeType": "committee type",
    "CorporationNameBranchType": "branch type",
    "CorporationNameBranchIdentifier": "branch",
    "CorporationNameAndCompany": "and company",
    "ShortForm": "short form",
    "AKA": "also known as",
    "ProxyFor": "on behalf of",
    "CareOf": "care of",
}
ENTRY = re.compile(r"<(AddressString|Name)>(.*?)</\1>", re.DOTALL)
PART = re.compile(r"<(\w+)>([^<]*)</\1>")


def rows(task_id: str) -> Iterator[dict]:
    """Yield text and target.

    The target is "tag: span; tag: span" for the tasks of FILES, and an IOB2 tag per word for those of WORDS.
    Neighbouring parts with the same tag form one span. Texts with a single part, which are trivial, and texts
    with tags outside TAGS are left out.
    """
    by_word = task_id in WORDS
    for parts in _labelled(WORDS.get(task_id, task_id)):
        groups = groupby(parts, key=lambda part: TAGS[part[0]])
        spans = [(tag, " ".join(span for _, span in group)) for tag, group in groups]
        target = _tags(spans) if by_word else "; ".join(f"{tag}: {span.rstrip(',;')}" for tag, span in spans)
        yield {"text": " ".join(span for _, span in parts), "target": target}


def _labelled(task_id: str) -> Iterator[list[tuple[str, str]]]:
    """Yield the (tag, span) parts of each text."""
    package, file = FILES[task_id]
    for entry in ENTRY.finditer(archives.read(package, file)[file].decode("utf-8")):
        parts = [(tag, html.unescape(span).strip()) for tag, span in PART.findall(entry[2])]
        if len(parts) > 1 and all(tag in TAGS and span for tag, span in parts):
            yield parts


def _tags(spans: list[tuple[str, str]]) -> str:
    """Return one tag per word, with underscores for blanks in its name."""
    named = [(tag.replace(" ", "_"), len(words_of(span))) for tag, span in spans]
    return " ".join(f"{'I' if i else 'B'}-{tag}" for tag, size in named for i in range(size))
