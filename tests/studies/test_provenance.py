import errno
import json
import shlex
from types import SimpleNamespace

import pytest

from iptkit.storage import files, paths
from iptkit.studies import provenance, scales, stored_results
from iptkit.studies.study import Study


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "rows.about.json: the file holds a JSON list, an object in braces is needed"),
        ("[" * 100_000, "rows.about.json:1: lists or objects are nested more than 100 deep"),
        ('{"seed": 0,\n"seed": 1}', "rows.about.json:1: 'seed' appears twice"),
        ('{"scale": []}', "rows.about.json does not say what made the rows next to it; move it away"),
        ('{"command": 3}', "rows.about.json does not say what made the rows next to it"),
        ("{", "rows.about.json:1: not valid JSON"),
    ],
)
def test_a_provenance_that_says_nothing_is_named(tmp_path, monkeypatch, text, message):
    study = SimpleNamespace(scale=scales.load("smoke"), seed=0, device="cpu")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"task": "a"}\n')
    path.with_suffix(".about.json").write_text(text)
    with pytest.raises(ValueError) as error:
        provenance.check_target(study, path)
    assert message in str(error.value) and str(tmp_path) in str(error.value)
    assert path.read_text() == '{"task": "a"}\n'


def test_a_folder_instead_of_the_provenance_is_named(tmp_path):
    study = SimpleNamespace(scale=scales.load("smoke"), seed=0, device="cpu")
    (tmp_path / "rows.about.json").mkdir()
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"rows.about.json is a folder, a file is needed"):
        provenance.check_target(study, tmp_path / "rows.jsonl")


def test_stored_rows_that_lack_a_field_and_another_about_are_named(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
    row = '{"task": "a", "method": "IST", "split": "seen", "d_I": 5, "seed": 0'
    whole = row + ', "score": 0.5, "chance": 0.1}\n'
    (folder / "mine.jsonl").write_text(whole + row + "}\n")
    with pytest.raises(ValueError, match=r"mine.jsonl:2: the row lacks score; restore the file"):
        stored_results.load_rows("mine")
    (folder / "mine.jsonl").write_text(whole + whole.replace('"d_I": 5, ', ""))
    with pytest.raises(FileNotFoundError, match=r"there is no file .*mine.about.json"):
        stored_results.load_rows("mine")
    (folder / "mine.about.json").write_text("{}")
    with pytest.raises(ValueError, match=r"mine.jsonl:2: the row lacks d_I; restore the file"):
        stored_results.load_rows("mine")
    (folder / "mine.jsonl").write_text(whole)
    assert stored_results.load_rows("mine") == ([json.loads(whole)], {})
    (folder / "mine.about.json").write_text("[]")
    with pytest.raises(ValueError, match=r"mine.about.json: the file holds a JSON list"):
        stored_results.load_rows("mine")


def test_new_rows_leave_no_file_of_the_previous_study(tmp_path, monkeypatch):
    """The prompts of one study next to the rows of another would be taken for its own."""
    monkeypatch.setattr(provenance, "describe", lambda *_: {})
    monkeypatch.setattr(provenance, "command", lambda *_: "")
    path = tmp_path / "rows.jsonl"
    for name in ("rows.mine.txt", "other.txt"):
        (tmp_path / name).write_text("not of a study")
    provenance.write_rows(
        None, path, [], [], extra_files=lambda draft: draft.with_suffix(".prompts").write_text("1")
    )
    assert (tmp_path / "rows.prompts").exists()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(files.DiskFullError):
        provenance.write_rows(None, path, [], [], extra_files=full)
    assert (tmp_path / "rows.prompts").exists(), "nothing changed"
    provenance.write_rows(None, path, [], [])
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "other.txt",
        "rows.about.json",
        "rows.jsonl",
        "rows.mine.txt",
    ]


@pytest.mark.parametrize(
    "text", ["[]", '{"files": 3}', '{"files": {"../a": "", "rows./../a": "", "a": "", "rows.jsonl": 3}}']
)
def test_what_an_older_provenance_names_is_removed_only_if_it_is_of_these_rows(tmp_path, monkeypatch, text):
    monkeypatch.setattr(provenance, "describe", lambda *_: {})
    monkeypatch.setattr(provenance, "command", lambda *_: "")
    (tmp_path / "in").mkdir()
    (tmp_path / "a").write_text("")
    (tmp_path / "in" / "a").write_text("")
    (tmp_path / "in" / "rows.about.json").write_text(text)
    provenance.write_rows(None, tmp_path / "in" / "rows.jsonl", [], [])
    assert (tmp_path / "a").exists() and (tmp_path / "in" / "a").exists()


@pytest.mark.parametrize("name", ["lesson", "full", "ipt120", "paper"])
def test_the_stored_command_makes_the_same_study_again(name):
    asked = shlex.split(provenance.command(Study(scales.load(name))))
    given = {key.removeprefix("--"): value for key, value in zip(asked[2::2], asked[3::2], strict=True)}
    assert given.pop("part") == "subspace"
    dims, seeds = given.pop("dims").split(","), given.pop("seeds", None)
    count = int(seeds) if seeds else None
    again = scales.variant(given.pop("scale"), **given, dims=list(map(int, dims)), num_seeds=count)
    assert again == scales.load(name)
