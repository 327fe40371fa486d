"""Facts about countries (countryinfo)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache

from iptkit.storage import archives

VERSION = 1
FIELDS = {"country-capital": "capital", "country-demonym": "demonym", "country-region": "region"}
REGIONS = ("Africa", "Americas", "Asia", "Europe", "Oceania")


def rows(task_id: str) -> Iterator[dict]:
    """Yield country and target: its capital, demonym or region."""
    for country in _countries():
        value = country.get(FIELDS[task_id])
        value = value[0] if isinstance(value, list) else value
        if value and (task_id != "country-region" or value in REGIONS):
            yield {"country": country["name"].strip(), "target": value.strip()}


@cache
def _countries() -> list[dict]:
    return [json.loads(data) for data in archives.read("countryinfo", "countryinfo/data/*.json").values()]
