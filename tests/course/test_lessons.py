import json

import nbformat
import pytest
import toy_notebooks as toy
from nbformat.v4 import new_output

from iptkit.course import lessons
from iptkit.storage import paths


@pytest.fixture
def course(tmp_path):
    for name in ("00_start_here", "05_subspace_finding", "06_subspace_tuning"):
        toy.write(
            tmp_path / f"{name}.ipynb",
            f"# {name[:2]}. What is {name[3:]}?\nMore.",
            toy.code("x = 1"),
            toy.code(""),
        )
    (tmp_path / "notes.ipynb").write_text("{}", encoding="utf-8")
    return lessons.find(tmp_path)


def test_lessons_in_order_with_their_question(course):
    assert [lesson.number for lesson in course] == ["00", "05", "06"]
    assert course[1].title == "05 subspace finding"
    assert course[1].question == "What is subspace_finding?"
    assert course[1].num_code_cells == 2  # the empty one does not run


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "07_broken.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="07_broken.ipynb cannot be read as a notebook"):
        _ = lessons.find(tmp_path)[0].question


def test_where_notebooks_are_found(tmp_path, monkeypatch):
    """The current folder's, else the kit's own: beside the package in a checkout, in it in a wheel."""
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "site" / "iptkit")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="notebooks are missing.*install iptkit again"):
        lessons.folder()
    for place in ("site/iptkit/notebooks", "site/notebooks", "notebooks"):
        toy.write(tmp_path / place / "00_own.ipynb", "# 00. Mine?")
        assert lessons.folder() == tmp_path / place
    assert lessons.own_folder() == tmp_path / "site" / "notebooks"


def test_a_folder_is_named_itself_or_the_one_around_it(tmp_path, course):
    assert lessons.folder(str(tmp_path)) == tmp_path
    for lesson in course:
        toy.write(tmp_path / "mine" / "notebooks" / lesson.path.name, "# 00. Mine?")
    assert lessons.folder(tmp_path / "mine") == tmp_path / "mine" / "notebooks"
    for empty in ("mine/notebooks/deeper", "nowhere"):
        with pytest.raises(FileNotFoundError, match=f"no notebooks in .*{empty} .*`iptkit init FOLDER`"):
            lessons.find(tmp_path / empty)


@pytest.mark.parametrize(
    ("only", "numbers"),
    [
        (None, ["00", "05", "06"]),
        (["06", " 00"], ["00", "06"]),
        (["05_subspace_finding", "06_subspace_tuning.ipynb"], ["05", "06"]),
    ],
)
def test_select(course, only, numbers):
    assert [lesson.number for lesson in lessons.select(course, only)] == numbers


@pytest.mark.parametrize("only", [["07"], ["5"], ["05", "subspace"]])
def test_select_names_what_there_is(course, only):
    with pytest.raises(ValueError, match="no notebook .*; there are: 00_start_here, 05_subspace_finding"):
        lessons.select(course, only)
    with pytest.raises(ValueError, match="no notebook named"):
        lessons.select(course, [" ", ""])


def test_unknown_parameters_are_refused(tmp_path, course):
    lessons.check_parameters(course[0], ["scale", "device"])
    with pytest.raises(
        ValueError, match="00_start_here.ipynb has no parameter size; .* defines scale, seed, device"
    ):
        lessons.check_parameters(course[0], ["scale", "size"])
    toy.write(tmp_path / "08_none.ipynb", "# 08. None?", parameters="")
    with pytest.raises(ValueError, match="defines nothing"):
        lessons.check_parameters(lessons.Lesson(tmp_path / "08_none.ipynb"), ["scale"])


BROKEN = {
    "another format": (lambda raw: raw.update(nbformat=3), "has the notebook format 3; save it in format 4"),
    "a format in words": (lambda raw: raw.update(nbformat="4"), "has the notebook format '4'"),
    "no format": (lambda raw: raw.pop("nbformat"), "has the notebook format None"),
    "no cells": (lambda raw: raw.pop("cells"), "cannot be run as a notebook .*cells"),
    "an unknown cell": (lambda raw: raw["cells"][1].update(cell_type="x"), "cannot be run as a notebook"),
    "tags in words": (
        lambda raw: raw["cells"][1]["metadata"].update(tags="parameters"),
        "cannot be run as a notebook .*'parameters' is not of type 'array'",
    ),
    "a list for facts": (lambda raw: raw.update(metadata=[]), "cannot be run as a notebook"),
    "a number for text": (lambda raw: raw["cells"][1].update(source=3), "cannot be run as a notebook"),
    "no kernel": (lambda raw: raw.update(metadata={}), "does not say that it runs in Python"),
    "another language": (
        lambda raw: raw["metadata"]["kernelspec"].update(language="R"),
        "does not say that it runs in Python; choose the kernel Python 3",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_notebook_that_cannot_be_run_is_refused_by_name(tmp_path, kind):
    change, message = BROKEN[kind]
    source = toy.write(tmp_path / "00_own.ipynb", "# 00. Mine?")
    raw = json.loads(source.read_text(encoding="utf-8"))
    change(raw)
    source.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(ValueError, match=f"00_own.ipynb {message}"):
        lessons.check_parameters(lessons.Lesson(source), ["scale"])


def executed(source):
    """Return what papermill makes of a notebook, in all the ugliness that must not be committed."""
    notebook = nbformat.read(source, as_version=4)
    banner = toy.text("An error was met")
    banner.metadata.tags = ["papermill-error-cell-tag"]
    notebook.cells.insert(0, banner)
    notebook.cells.insert(3, toy.code('scale = "lesson"', "injected-parameters", count=2))
    notebook.metadata.update(
        papermill={"duration": 1}, widgets={}, language_info={"name": "python", "version": "3.11.7"}
    )
    cell = notebook.cells[4]
    cell.metadata.update(papermill={"duration": 1}, execution={}, tags=["nbval-check-output"])
    cell.execution_count = 3
    cell.outputs = [
        toy.printed("a "),
        toy.printed("warning", "stderr"),
        toy.printed("b\n"),
        new_output("execute_result", {"text/plain": "1"}, execution_count=3),
    ]
    return notebook


def test_normalise(course):
    notebook = lessons.normalise(executed(course[0].path))
    nbformat.validate(notebook)
    assert [cell.source for cell in notebook.cells] == [
        cell.source for cell in nbformat.read(course[0].path, as_version=4).cells
    ]
    assert (
        set(notebook.metadata) == {"kernelspec", "language_info"}
        and "version" not in notebook.metadata.language_info
    )
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == [1, 2, 3]
    assert codes[1].metadata == {"tags": ["nbval-check-output"]}
    assert [output.output_type for output in codes[1].outputs] == ["stream", "execute_result"]
    assert codes[1].outputs[0].text == "a b\n" and codes[1].outputs[1].execution_count == 2


@pytest.fixture
def finished(tmp_path, course):
    """A finished run of the course's first notebook."""
    out = tmp_path / "runs"
    out.mkdir()
    whole = executed(course[0].path)
    for count, cell in enumerate(cell for cell in whole.cells if cell.cell_type == "code"):
        cell.execution_count = count + 1
    nbformat.write(whole, out / course[0].path.name)
    timings = {
        "scale": "lesson",
        "seconds": {"00_start_here": 2.0},
        "status": {"00_start_here": "ok"},
        "made_with": {"processor": "x"},
    }
    (out / "timings.json").write_text(json.dumps(timings), encoding="utf-8")
    return out


def test_keep_writes_outputs_back(tmp_path, course, finished):
    assert lessons.commit_outputs(finished, tmp_path) == [course[0].path]
    kept = nbformat.read(course[0].path, as_version=4)
    assert kept.cells[2].outputs[0].text == "a b\n"
    assert course[0].path.read_text(encoding="utf-8").endswith("}\n")


def test_keep_writes_times_into_data(tmp_path, course, finished, monkeypatch):
    (tmp_path / "timings.json").write_text(
        json.dumps({"smoke": {}, "lesson": {"seconds": {"05_subspace_finding": 9, "99_gone": 1}}}),
        encoding="utf-8",
    )
    monkeypatch.setattr(lessons, "own_folder", lambda: tmp_path)
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
    lessons.commit_outputs(finished)
    kept = json.loads((tmp_path / "timings.json").read_text(encoding="utf-8"))
    assert kept.keys() == {"smoke", "lesson"} and kept["lesson"]["teraflops"] > 0
    assert kept["lesson"]["seconds"] == {"00_start_here": 2.0, "05_subspace_finding": 9}
    assert kept["lesson"]["made_with"] == {"processor": "x"}


@pytest.mark.parametrize("other, stays", [(9, True), (1, False)])
def test_keep_leaves_the_machine_that_most_of_the_time_was_measured_on(
    tmp_path, course, finished, monkeypatch, other, stays
):
    seconds = {"00_start_here": 0.1, "05_subspace_finding": other}
    before = {"lesson": {"seconds": seconds, "teraflops": 123.0, "made_with": {"processor": "y"}}}
    (tmp_path / "timings.json").write_text(json.dumps(before), encoding="utf-8")
    monkeypatch.setattr(lessons, "own_folder", lambda: tmp_path)
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
    lessons.commit_outputs(finished)
    kept = json.loads((tmp_path / "timings.json").read_text(encoding="utf-8"))
    assert (kept["lesson"]["teraflops"] == 123.0) == stays
    assert kept["lesson"]["made_with"] == {"processor": "y" if stays else "x"}
    assert kept["lesson"]["seconds"]["00_start_here"] == (0.1 if stays else 2.0)


def test_keep_refuses_a_notebook_that_was_not_run_to_its_end(tmp_path, course, finished):
    half = nbformat.read(finished / course[0].path.name, as_version=4)
    [cell for cell in half.cells if cell.cell_type == "code" and cell.source][-1].execution_count = None
    nbformat.write(half, finished / course[0].path.name)
    before = course[0].path.read_bytes()
    with pytest.raises(ValueError, match="00_start_here.ipynb in .* was not run to its end; run it again"):
        lessons.commit_outputs(finished, tmp_path)
    assert course[0].path.read_bytes() == before


def test_keep_refuses_times_of_several_notebooks_at_a_time(tmp_path, course, finished):
    timings = json.loads((finished / "timings.json").read_text(encoding="utf-8"))
    (finished / "timings.json").write_text(json.dumps(timings | {"at_once": 2}), encoding="utf-8")
    with pytest.raises(ValueError, match="ran 2 at a time, .* run them with --at-once 1"):
        lessons.commit_outputs(finished, tmp_path)


def test_keep_refuses_other_scales_failures_and_changed_sources(tmp_path, course, finished):
    before = course[0].path.read_bytes()
    file = finished / "timings.json"
    good = file.read_text(encoding="utf-8")
    for bad in (good.replace("lesson", "smoke"), good.replace('"ok"', '"failed"')):
        file.write_text(bad, encoding="utf-8")
        with pytest.raises(ValueError, match="no complete run at scale 'lesson'"):
            lessons.commit_outputs(finished, tmp_path)
    file.write_text(good, encoding="utf-8")
    toy.write(course[0].path, "# 00. Another question?", toy.code("x = 2"))
    with pytest.raises(ValueError, match="was changed after"):
        lessons.commit_outputs(finished, tmp_path)
    toy.write(course[0].path, "# 00. What is start_here?\nMore.", toy.code("x = 1"), toy.code(""))
    file.unlink()
    with pytest.raises(FileNotFoundError, match="no timings.json"):
        lessons.commit_outputs(finished, tmp_path)
    assert json.loads(course[0].path.read_bytes())["cells"][2]["outputs"] == [] and before
