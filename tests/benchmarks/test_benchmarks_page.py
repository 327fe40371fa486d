"""The benchmarks' pages say what the stored results say."""

import doctest
import json
import re
import shutil
import sys

import pytest

from benchmarks import page

NAMES = sorted(page.PAGES)


def text_of(name):
    return (page.HERE / name).read_text(encoding="utf-8")


@pytest.fixture
def copied(tmp_path):
    """A copy of the stored results that a test may change."""
    shutil.copytree(page.RESULTS, tmp_path / "results")
    return page.Stored(tmp_path / "results", shutil.copy(page.TIMINGS, tmp_path / "timings.json"))


def change(file, edit):
    content = json.loads(file.read_text(encoding="utf-8"))
    edit(content)
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_what_the_command_writes(name):
    assert page.page(name, text_of(name), page.Stored()) == text_of(name), "run python -m benchmarks.page"


def changed_blocks(name, stored):
    """Names of the blocks that differ from the page."""
    made = page.page(name, text_of(name), stored)
    split = re.compile(r"<!-- begin (\S+) -->\n(.*?)<!-- end", re.DOTALL)
    both = dict(split.findall(text_of(name))), dict(split.findall(made))
    return {block for block, text in both[0].items() if text != both[1][block]}


def slower(content):
    content["rows"][0]["times"] *= 0.9


def less_exact(content):
    content["errors"]["AVX2"]["errors"]["mixed"]["engine"][0] *= 2


def larger(content):
    content["axes"]["tasks"][-1]["peak_bytes"] *= 2


def longer(content):
    content["lesson"]["seconds"]["03_p_tuning"] += 60


def better(content):
    content["cells"][0]["dev_loss"] = 0.5


@pytest.mark.parametrize(
    ("name", "file", "edit", "block"),
    [
        ("README.md", f"results/{page.SPEED[0]}", slower, "speed"),
        ("README.md", f"results/{page.ERRORS}", less_exact, "errors"),
        ("README.md", f"results/{page.GROWTH[0]}", larger, "growth"),
        ("README.md", "timings.json", longer, "course"),
        ("learning-rates.md", "results/learning-rates-lesson.json", better, "rates"),
    ],
)
def test_a_changed_result_changes_its_block_only(copied, name, file, edit, block):
    change(copied.results.parent / file, edit)
    assert changed_blocks(name, copied) == {block}


def test_the_limit_follows_the_results(copied):
    assert f"{page.GOAL} times cannot be reached" in page.limit(copied)

    def faster(content):
        content["rows"][0]["times_at_peak"] = page.GOAL

    change(copied.results / page.SPEED[0], faster)
    assert f"{page.GOAL} times could be reached" in page.limit(copied)


def test_a_row_comes_from_the_first_file_that_has_it(copied):
    def without_a(content):
        content["rows"] = [row for row in content["rows"] if row["row"] != "a"]

    first, second = (copied.read(name) for name in page.SPEED[:2])
    of_a = [next(row for row in content["rows"] if row["row"] == "a") for content in (first, second)]
    assert copied.speed()["a"]["times"] == of_a[0]["times"]
    assert copied.speed()["a"]["peak_bytes"] == of_a[1]["peak_bytes"], "the first file has none"
    change(copied.results / page.SPEED[0], without_a)
    assert copied.speed()["a"]["times"] == of_a[1]["times"]


def test_every_result_file_is_used():
    read = set()

    class Watched(page.Stored):
        def read(self, name):
            read.add(name)
            return super().read(name)

    for name in NAMES:
        page.page(name, text_of(name), Watched())
    assert read == {file.name for file in page.RESULTS.iterdir()}


def test_every_benchmark_has_a_line_in_the_table():
    commands = {
        file.stem for file in page.HERE.glob("*.py") if "argparse" in file.read_text(encoding="utf-8")
    }
    table = text_of("README.md").partition("|---|---|\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)", table, re.MULTILINE)) == commands


def test_examples_in_docstrings():
    assert doctest.testmod(page).attempted > 0 and doctest.testmod(page).failed == 0


def test_a_missing_or_doubled_block_is_refused():
    text = text_of("learning-rates.md")
    with pytest.raises(ValueError, match="has the blocks none; it must have each of rates once"):
        page.page("learning-rates.md", "# nothing\n", page.Stored())
    with pytest.raises(ValueError, match="rates, rates"):
        page.page("learning-rates.md", text + text, page.Stored())


def test_check_writes_nothing_and_fails_where_a_page_differs(tmp_path, monkeypatch):
    for name in NAMES:
        shutil.copy(page.HERE / name, tmp_path / name)
    monkeypatch.setattr(page, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["page", "--check"])
    page.main()
    old = text_of("README.md").replace("prompt tuning, 1 task", "something else")
    (tmp_path / "README.md").write_text(old, encoding="utf-8")
    with pytest.raises(SystemExit, match="README.md differs"):
        page.main()
    assert text_of("README.md") == old
    monkeypatch.setattr(sys, "argv", ["page"])
    page.main()
    assert "prompt tuning, 1 task" in text_of("README.md")
