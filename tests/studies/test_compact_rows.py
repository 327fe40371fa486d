"""Rows that are written without repetition come back as they were."""

import json
import random
import shutil

import pytest

from iptkit.storage import digests, files, paths, reading, result_files
from iptkit.studies import compact_rows, provenance, stored_results

VALUES = ["fold1", "", "naïve\u2028\U0001f600", None, True, False, 0, 1, 1.0, 0.0, -0.0, 0.1 + 0.2, -(10**20)]
VALUES += [float("inf"), [1, [2, None]], {"a": [1.5]}, []]
OF_KIND = {"split": ["seen", "ü", ""], "d_I": [0, 5, 50], "chance": [0, 0.0, 1 / 3, 0.5]}
STORED = sorted(path.stem for path in (paths.data_dir() / "results").glob("*.jsonl") if path.stem != "claims")


def texts(rows):
    """What JSON would say of the rows: 1, 1.0 and true differ, and NaN is itself."""
    return [json.dumps(row, sort_keys=True) for row in rows]


def through_json(value):
    return json.loads(json.dumps(value))


def generated(draw):
    """Rows of some tasks and methods, in which fields are constant, constant per task, various or missing."""
    names = draw.sample(["chance", "metric", "split", "d_I", "fold", "steps", "run", "extra", "zahl ü"], 6)
    kinds = {name: draw.choice(["all", "task", "method", "any", "some"]) for name in names}
    of = {name: OF_KIND.get(name, VALUES) for name in names}
    fixed = {name: {key: draw.choice(of[name]) for key in ("", *"abc", "IST", "MSF")} for name in names}
    rows = []
    for _ in range(draw.randrange(12)):
        row = {"task": draw.choice("abc"), "method": draw.choice(["IST", "MSF"]), "seed": draw.randrange(2)}
        row["score"] = draw.choice([0.5, 0.5, None, draw.random()])
        for name, kind in kinds.items():
            key = {"all": "", "task": row["task"], "method": row["method"]}.get(kind)
            if kind != "some" or draw.random() < 0.5:
                row[name] = draw.choice(of[name]) if key is None else fixed[name][key]
        rows.append(row)
    return rows


def test_generated_rows_come_back_as_they_were():
    used = set()
    for start in range(500):
        rows = generated(random.Random(start))
        before = texts(rows)
        short, shared = compact_rows.pack(rows)
        assert texts(rows) == before and len(short) == len(rows)
        assert all({"task", "method", "seed", "score"} <= row.keys() for row in short)
        text = json.dumps(shared, allow_nan=False)
        assert texts(compact_rows.unpack(through_json(short), json.loads(text), "x")) == before, start
        used |= shared.keys()
    assert used == {*compact_rows.SHARED}


def test_what_is_shared_is_written_once():
    rows = [
        {"task": task, "group": task.upper(), "method": method, "seed": 0, "score": 0.5, "device": "cpu",
         "d_I": dim, "split": "seen", **({"steps": 48} if dim else {}), "run": run}
        for task in "ab" for method, dim in (("IST", 5), ("zero-shot", 0)) for run in (0, 1)
    ]  # fmt: skip
    short, shared = compact_rows.pack(rows)
    assert shared[compact_rows.EVERY] == {"device": "cpu", "split": "seen"}
    assert shared[compact_rows.TASK] == {"a": {"group": "A"}, "b": {"group": "B"}}
    assert shared[compact_rows.TOGETHER] == [
        {"method": "IST", "split": "seen", "d_I": 5, "seed": 0, "steps": 48}
    ]
    assert short[0] == {"task": "a", "method": "IST", "seed": 0, "score": 0.5, "d_I": 5, "run": 0}
    assert compact_rows.pack([]) == ([], {})
    short, shared = compact_rows.pack([{"score": 1, "device": "cpu"}, {"task": "a", "device": "cpu"}])
    assert (short, shared) == ([{"score": 1}, {"task": "a"}], {compact_rows.EVERY: {"device": "cpu"}})


@pytest.mark.parametrize("name", STORED)
def test_stored_rows_are_smaller_and_come_back_as_they_were(tmp_path, monkeypatch, name):
    of = paths.data_dir() / "results"
    rows, about = stored_results.load_rows(name)
    (tmp_path / "results").mkdir()
    path = tmp_path / "results" / f"{name}.jsonl"
    result_files.write(path, rows)
    known = reading.read_json(of / f"{name}.about.json")
    known = {key: value for key, value in known.items() if key not in compact_rows.SHARED}
    if "files" in known:
        known["files"] |= {path.name: digests.sha256(path)}
    files.write_json(path.with_suffix(".about.json"), known)
    before = [file.stat().st_size for file in (path, path.with_suffix(".about.json"))]
    provenance.make_compact(path)
    after = [file.stat().st_size for file in (path, path.with_suffix(".about.json"))]
    assert sum(after) < 0.8 * sum(before)
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
    for given in (name, path, str(path)):
        read, made = stored_results.load_rows(given)
        assert texts(read) == texts(rows) and made.keys() == about.keys()
    once = path.read_bytes(), path.with_suffix(".about.json").read_bytes()
    provenance.make_compact(path)
    assert (path.read_bytes(), path.with_suffix(".about.json").read_bytes()) == once
    assert sorted(file.name for file in path.parent.iterdir()) == [f"{name}.about.json", f"{name}.jsonl"]


def compact(folder):
    path = folder / "rows.jsonl"
    rows = [
        {"task": task, "group": task, "method": "IST", "split": "seen", "d_I": 5, "seed": seed, "score": 0.5,
         "chance": 0.25, "run": seed, "n_test": 4}
        for task in "ab" for seed in (0, 1)
    ]  # fmt: skip
    result_files.write(path, rows)
    files.write_json(path.with_suffix(".about.json"), {"files": {path.name: digests.sha256(path)}})
    provenance.make_compact(path)
    return path, rows


def test_compact_rows_and_whole_ones_do_not_mix(tmp_path):
    """If the process is killed between two renames, the next reader notices."""
    path, rows = compact(tmp_path)
    assert stored_results.load_rows(path)[0] == rows and len(result_files.read(path)) == len(rows)
    result_files.write(path, rows)
    with pytest.raises(ValueError, match=r"rows.jsonl is not the file that its provenance was written with"):
        stored_results.load_rows(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (compact_rows.EVERY, [], "'every row' holds [], an object is needed; restore the file"),
        (compact_rows.EVERY, {"d_I": 5.5, "chance": 0.5, "split": "seen"}, "has d_I 5.5, a whole number is"),
        (compact_rows.EVERY, {"d_I": True}, "has d_I True, a whole number is needed"),
        (compact_rows.EVERY, {"d_I": 5}, "rows.jsonl:1: the row lacks split, chance; restore the file"),
        (compact_rows.TASK, {"a": {}}, "'every row of a task' lacks the task 'b'; restore the file"),
        (compact_rows.TASK, {"a": 3, "b": {}}, "'every row of a task' holds 3, an object is needed"),
        (compact_rows.TASK, 7, "'every row of a task' holds 7, an object is needed"),
        (compact_rows.TOGETHER, {"a": 1}, "fold' holds {'a': 1}, a list of objects is needed"),
        (compact_rows.TOGETHER, [[]], "fold' holds [], an object is needed"),
    ],
)
def test_shared_fields_that_somebody_changed_are_named(tmp_path, name, value, message):
    path, _ = compact(tmp_path)
    about = reading.read_json(path.with_suffix(".about.json"))
    files.write_json(path.with_suffix(".about.json"), about | {name: value})
    with pytest.raises(ValueError) as error:
        stored_results.load_rows(path)
    assert message in str(error.value) and str(tmp_path) in str(error.value)


def test_a_full_disk_leaves_the_whole_rows(tmp_path, monkeypatch):
    path, rows = compact(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    before = {file.name: file.read_bytes() for file in (tmp_path / "second").iterdir()}

    def full(*_):
        raise files.DiskFullError("no space left for x")

    monkeypatch.setattr(files, "write_json", full)
    with pytest.raises(files.DiskFullError):
        provenance.make_compact(tmp_path / "second" / "rows.jsonl")
    assert {file.name: file.read_bytes() for file in (tmp_path / "second").iterdir()} == before
