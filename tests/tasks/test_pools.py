import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy_sources

from iptkit.storage import paths
from iptkit.tasks import pools, suites


@pytest.fixture(autouse=True)
def archives(tmp_path, monkeypatch):
    with toy_sources.made_archives(tmp_path, monkeypatch):
        yield


def test_long_rows_are_left_out(monkeypatch):
    assert pools.estimate_tokens("abcabc 12") == 2 + 7 / 3
    (card,) = (card for card in suites.list_cards("core36") if card.id == "country-capital")
    assert len(list(pools.examples(card))) == 2
    monkeypatch.setattr(pools, "MAX_TARGET", 2)
    assert list(pools.examples(card)) == []


def test_pools_are_built_once_and_kept_as_parquet(monkeypatch):
    places = {f"land{i}": f"town{i}" for i in range(40)}
    countries = {
        f"countryinfo/data/{name}.json": json.dumps({"name": name, "capital": capital})
        for name, capital in places.items()
    }
    monkeypatch.setitem(toy_sources.FILES, "countryinfo", countries)
    first = suites.load_task("country-capital")
    assert (len(first.train), len(first.test)) == (10, 10)
    assert first.train[0].input == f"What is the capital of {first.train[0].input.split()[-1]}"
    monkeypatch.setattr(pools, "build", lambda cards: pytest.fail("built twice"))
    assert suites.load_task("country-capital") == first
    (file,) = paths.tasks_dir().glob("country-capital-*.parquet")
    for table in (
        pa.table({"split": ["pool"]}),
        pa.table({"a": [1]}, pa.schema([("a", pa.int64())], {"iptkit": "["})),
    ):
        pq.write_table(table, file)
        with pytest.raises(ValueError, match=r"country-capital-.*parquet is damaged .*delete it"):
            suites.load_task("country-capital")


def test_a_changed_card_or_source_makes_a_new_file(monkeypatch):
    card = suites.list_cards("core36")[0]
    before = pools.cache_file(card)
    assert pools.cache_file(card) == before
    monkeypatch.setattr("iptkit.tasks.sources.vader.VERSION", 99)
    assert pools.cache_file(card) != before
