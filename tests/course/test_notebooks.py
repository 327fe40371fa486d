"""The shape of every notebook of the course; what they compute is compared by nbval."""

import re
from pathlib import Path

import nbformat
import pytest
import toy_notebooks as toy

from iptkit.course import editions

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
FIRST = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "90")
HEADINGS = ("At a glance", "The idea", "What you should see", "Summary")
OF_LESSONS = ("Are you ready?", "Exercises", "Do you know it?", "Further reading", "中文小结")
TAGS = {"parameters", "nbval-check-output", "nbval-ignore-output", "summary", *editions.TAGS}
PARAMETERS = ("scale", "seed", "device")
MAX_LINES, MAX_COLUMNS, MAX_WORDS, MAX_BYTES = 25, 88, 120, 300 * 1024


def problems(path):
    """Return everything that is wrong with a notebook's shape, in words."""
    notebook = nbformat.read(path, as_version=4)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    found = [*_of_file(path, notebook), *_of_order(notebook, codes), *_of_headings(texts)]
    for index, cell in enumerate(notebook.cells):
        check = _of_text if cell.cell_type == "markdown" else _of_code
        found += [f"cell {index}: {problem}" for problem in check(cell)]
    return found


def _of_file(path, notebook):
    if not re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", path.name):
        yield "the name is not NN_some_words.ipynb"
    if path.stat().st_size > MAX_BYTES:
        yield f"{path.stat().st_size} bytes, more than {MAX_BYTES}"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not python3"
    for key in ("papermill", "widgets"):
        if key in notebook.metadata:
            yield f"metadata of {key}"


def _of_order(notebook, codes):
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1 or not codes or tagged[0] is not codes[0]:
        yield "the first code cell, and only that, must have the tag 'parameters'"
    elif [line.partition(":")[0] for line in tagged[0].source.splitlines() if ":" in line] != list(
        PARAMETERS
    ):
        yield f"the parameters must be {', '.join(PARAMETERS)}, each with its type, and nothing else"
    if [cell.execution_count for cell in codes] != list(range(1, len(codes) + 1)):
        yield "execution counts are not 1, 2, 3 ...: run it from the start (make regen)"
    if not any("nbval-check-output" in cell.metadata.get("tags", []) for cell in codes):
        yield "no cell is checked (tag 'nbval-check-output')"


def _of_headings(texts):
    if not texts or not re.match(r"# \d\d\. .*\?", texts[0]):
        yield "the first cell must be a heading '# NN. A question?'"
    headings = re.findall(r"^#+ (.*)$|^\*\*(.+?)\*\*", "\n".join(texts), re.MULTILINE)
    titles = " / ".join("".join(pair) for pair in headings)
    needed = (*HEADINGS, *OF_LESSONS) if "From scratch" in titles else HEADINGS
    yield from (f"no heading '{heading}'" for heading in needed if heading not in titles)


def _of_text(cell):
    words = " ".join(line for line in cell.source.splitlines() if not line.lstrip().startswith("|")).split()
    if len(words) > MAX_WORDS:
        yield f"{len(words)} words outside tables, more than {MAX_WORDS}"
    if re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=\"[^\"]+\")", cell.source):
        yield "a picture without a description"
    if "attachments" in cell:
        yield "an attachment"


def _of_code(cell):
    lines = cell.source.splitlines()
    tags = set(cell.metadata.get("tags", []))
    if len(lines) > MAX_LINES:
        yield f"{len(lines)} lines, more than {MAX_LINES}"
    if any(len(line) > MAX_COLUMNS for line in lines):
        yield f"a line longer than {MAX_COLUMNS} columns"
    if re.search(r"^\s*[!%]|;\s*$", cell.source, re.MULTILINE):
        yield "a magic, a shell command or a closing semicolon"
    if tags - TAGS:
        yield f"unknown tags: {', '.join(sorted(tags - TAGS))}"
    if "papermill" in cell.metadata:
        yield "metadata of papermill"
    if ("solution" in tags) != bool(cell.metadata.get("jupyter", {}).get("source_hidden")):
        yield "a solution, and no other cell, is folded in Jupyter: source_hidden"
    if "nbval-check-output" in tags and not any(map(_words_of, cell.outputs)):
        yield "it is checked, but has no stored output to compare with"
    for output in cell.outputs:
        yield from _of_output(output)


def _words_of(output):
    """What an output says in words: printed, or the last value of the cell."""
    return (output.get("text") or output.get("data", {}).get("text/plain", "")).strip()


def _of_output(output):
    if output.get("name") == "stderr":
        yield "output on stderr"
    if output.output_type == "error":
        yield f"an error: {output.ename}"
    data = output.get("data", {})
    if "<Figure" in _words_of(output) and not any(kind.startswith("image/") for kind in data):
        yield "a figure without its picture (use plots.show)"
    if any("widget" in kind for kind in data):
        yield "a widget"
    for kind in data:
        if kind.startswith("image/") and not output.metadata.get(kind, {}).get("alt", "").strip():
            yield "a picture without a description (use plots.show)"


def test_the_course_has_its_notebooks():
    assert set(FIRST) <= {path.name[:2] for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_shape(path):
    assert not problems(path)


def test_every_lesson_names_the_same_number_of_weights():
    """Fine-tuning trains all weights; a matrix that the model uses twice counts once."""
    found = {}
    for path in NOTEBOOKS[:3]:
        for cell in nbformat.read(path, as_version=4).cells:
            for words in map(_words_of, cell.get("outputs", ())):
                for number in re.findall(r"fine-tuning\s+(\d[\d,]{8,})", words):
                    found.setdefault(path.name[:2], set()).add(number)
    assert {"00", "02"} <= found.keys() and len(set.union(*found.values())) == 1, found


def good_cells():
    return [
        toy.text("**At a glance**\n\n| a | b |\n|---|---|\n" + "| word | word |\n" * 200),
        toy.text("## The idea\nPrices in $ and `x²`.\n\n![a ladder](ladder.png)"),
        toy.code("print('ok: fine')", "nbval-check-output", count=2, outputs=[toy.printed("ok: fine\n")]),
        toy.text("**What you should see**: a range."),
        toy.text("## Summary"),
    ]


def made(tmp_path, *extra, name="07_some_words.ipynb", change=None):
    path = toy.write(tmp_path / name, "# 07. A question?", *good_cells(), *extra)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].execution_count = 1
    if change:
        change(notebook)
    nbformat.write(notebook, path)
    return path


def test_a_good_notebook_has_no_problems(tmp_path):
    assert problems(made(tmp_path)) == []


BAD_CELLS = {
    "26 lines": toy.code("x = 1\n" * 26, count=3),
    "longer than 88 columns": toy.code("x = '" + "a" * 88 + "'", count=3),
    "a magic": toy.code("!pip install x", count=3),
    "closing semicolon": toy.code("plt.plot(x);", count=3),
    "unknown tags: nbval_check": toy.code("x = 1", "nbval_check", count=3),
    "no stored output": toy.code("print(1)", "nbval-check-output", count=3),
    "stderr": toy.code("x = 1", count=3, outputs=[toy.printed("warning", "stderr")]),
    "an error: ValueError": toy.code(
        "x", count=3, outputs=[toy.new_output("error", ename="ValueError", evalue="", traceback=[])]
    ),
    "a widget": toy.code(
        "x",
        count=3,
        outputs=[toy.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}})],
    ),
    "a figure without its picture": toy.code(
        "x", count=3, outputs=[toy.new_output("display_data", {"text/plain": "<Figure size 640x480>"})]
    ),
    "(use plots.show)": toy.code(
        "x", count=3, outputs=[toy.new_output("display_data", {"image/png": "aGk="})]
    ),
    "execution counts": toy.code("x = 1", count=4),
    "121 words": toy.text("word " * 121),
    "picture without": toy.text("![](picture.png)"),
    "without a description": toy.text("<img src='picture.png'>"),
    "no heading 'Do you know it?'": toy.text("## From scratch"),
    "must have the tag 'parameters'": toy.code("scale: str = 1", "parameters", count=3),
}


@pytest.mark.parametrize("expected", BAD_CELLS)
def test_each_bad_cell_is_found(tmp_path, expected):
    assert any(expected in problem for problem in problems(made(tmp_path, BAD_CELLS[expected])))


BAD_FILES = {
    "kernel is not": lambda notebook: notebook.metadata.kernelspec.update(name="iptkit"),
    "metadata of papermill": lambda notebook: notebook.metadata.update(papermill={}),
    "metadata of widgets": lambda notebook: notebook.metadata.update(widgets={}),
    "a heading": lambda notebook: notebook.cells[0].update(source="# Prompts"),
    "no heading 'Summary'": lambda notebook: notebook.cells.pop(),
    "the parameters must be": lambda notebook: notebook.cells[1].update(source="scale: str = 'x'"),
    "no cell is checked": lambda notebook: notebook.cells[4].metadata.update(tags=[]),
    "bytes, more than": lambda notebook: notebook.cells[4].outputs[0].update(text="x" * 310_000),
}


@pytest.mark.parametrize("expected", BAD_FILES)
def test_each_bad_file_is_found(tmp_path, expected):
    assert any(expected in problem for problem in problems(made(tmp_path, change=BAD_FILES[expected])))


def test_a_bad_name_is_found(tmp_path):
    assert problems(made(tmp_path, name="Untitled.ipynb")) == ["the name is not NN_some_words.ipynb"]
