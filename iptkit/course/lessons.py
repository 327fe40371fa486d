"""The notebooks of the course as files: finding and checking them, and committing the outputs of a run.

A lesson is notebooks/NN_some_words.ipynb. Its first code cell, tagged `parameters`, holds defaults that the
pipeline may replace.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from iptkit.scores import claims
from iptkit.storage import files, messages, paths, reading

PATTERN = "[0-9][0-9]_*.ipynb"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {
    "name": "python",
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "pygments_lexer": "ipython3",
}


@dataclass(frozen=True)
class Lesson:
    """One notebook of the course."""

    path: Path

    @property
    def name(self) -> str:
        """File name without its ending: "05_subspace_finding"."""
        return self.path.stem

    @property
    def number(self) -> str:
        """The two digits that the name begins with: "05"."""
        return self.name[:2]

    @property
    def title(self) -> str:
        """Short name for a status line: "05 subspace finding"."""
        return self.name.replace("_", " ")

    @cached_property
    def question(self) -> str:
        """The notebook's first heading, without its number."""
        for kind, text in self._cells:
            if kind == "markdown" and text.startswith("# "):
                return re.sub(r"^#\s+(\d+\.?\s+)?", "", text.splitlines()[0])
        return self.title

    @property
    def num_code_cells(self) -> int:
        """The number of code cells that are not empty."""
        return sum(kind == "code" and bool(text) for kind, text in self._cells)

    @cached_property
    def _cells(self) -> list[tuple[str, str]]:
        try:
            cells = reading.read_json(self.path)["cells"]
            return [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in cells]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path} cannot be read as a notebook ({messages.visible(str(error))})"
            ) from error


def own_folder() -> Path:
    """Return the folder of the kit's own notebooks: beside the package in a checkout, else inside it.

    Raises: FileNotFoundError if there is none (a broken installation).
    """
    places = (paths.PACKAGE.parent / "notebooks", paths.PACKAGE / "notebooks")
    for place in places:
        if any(place.glob(PATTERN)):
            return place
    raise FileNotFoundError(
        f"the kit's own notebooks are missing (looked for NN_*.ipynb in {' and '.join(map(str, places))}); "
        "install iptkit again, or run it from a complete checkout"
    )


def folder(place: str | Path | None = None) -> Path:
    """Return a folder with notebooks.

    Args:
      place: the folder, or one that has them in its folder `notebooks`, as `iptkit init` lays them out. None
        for the current folder's `notebooks`; if it has none, those that come with the kit.
    Raises: FileNotFoundError if there are none.
    """
    if place is None:
        here = Path.cwd() / "notebooks"
        return here if any(here.glob(PATTERN)) else own_folder()
    place = paths.expanded(place)
    for one in (place, place / "notebooks"):
        if any(one.glob(PATTERN)):
            return one
    raise FileNotFoundError(
        f"no notebooks in {place} (looked for NN_*.ipynb there and in its folder notebooks); "
        "`iptkit init FOLDER` puts those of the course into a folder of yours"
    )


def find(place: str | Path | None = None) -> list[Lesson]:
    """Return the lessons of a folder in order.

    Args:
      place: as for `folder`.
    Raises: FileNotFoundError if there are none.
    """
    return [Lesson(path) for path in sorted(folder(place).glob(PATTERN))]


def select(lessons: Sequence[Lesson], only: Iterable[str] | None) -> list[Lesson]:
    """Choose lessons by number ("05") or name ("05_subspace_finding"), in course order.

    Args:
      lessons: the lessons to choose from.
      only: their numbers or names; None for all lessons.
    Raises: ValueError for a name that no lesson has, or no names at all.
    """
    if only is None:
        return list(lessons)
    wanted = [name.strip().removesuffix(".ipynb") for name in only if name.strip()]
    known = ", ".join(lesson.name for lesson in lessons) or "none"
    if not wanted:
        raise ValueError(f"no notebook named; there are: {known}")
    for name in wanted:
        if not any(name in (lesson.number, lesson.name) for lesson in lessons):
            raise ValueError(
                f"no notebook {name!r}; there are: {known} (name them by number, for example 05,06)"
            )
    return [lesson for lesson in lessons if lesson.number in wanted or lesson.name in wanted]


def check_parameters(lesson: Lesson, names: Iterable[str]) -> None:
    """Make sure that a notebook defines the parameters that a run will set (papermill itself only warns).

    Args:
      lesson: the notebook.
      names: the parameters.
    Raises: ValueError for a notebook that cannot run, or naming the unknown parameters and the known ones.
    """
    import papermill

    _check_notebook(lesson.path)
    known = list(papermill.inspect_notebook(literal(lesson.path)))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"{lesson.path.name} has no parameter {', '.join(unknown)}; the cell tagged 'parameters' must "
            f"define it, and defines {', '.join(known) or 'nothing'}"
        )


def _check_notebook(path: Path) -> None:
    """Raise ValueError for a notebook that papermill cannot run."""
    import nbformat

    raw = reading.read_json(path)
    if raw.get("nbformat") != nbformat.current_nbformat:
        raise ValueError(
            f"{path} has the notebook format {raw.get('nbformat')!r}; save it in format "
            f"{nbformat.current_nbformat}, as Jupyter does"
        )
    try:
        nbformat.validate(nbformat.from_dict(raw))
    except (nbformat.ValidationError, AttributeError, KeyError, TypeError) as error:
        wrong = getattr(error, "message", str(error))
        raise ValueError(
            f"{path} cannot be run as a notebook ({wrong[:200]}); save it again with Jupyter"
        ) from error
    kernel, language = (raw["metadata"].get(name, {}) for name in ("kernelspec", "language_info"))
    if "python" not in (kernel.get("language"), language.get("name")) or "name" not in kernel:
        raise ValueError(
            f"{path} does not say that it runs in Python; choose the kernel {KERNEL['display_name']} in "
            "Jupyter and save it"
        )


def literal(path: str | Path) -> str:
    """A path as papermill takes it, with braces doubled: papermill fills in single ones.

    >>> literal(Path("exp_{scale}/00.ipynb"))
    'exp_{{scale}}/00.ipynb'
    """
    return str(path).replace("{", "{{").replace("}", "}}")


def normalise(notebook: Any) -> Any:
    """Turn an executed notebook into the form that is committed, in place.

    Removes the cell of injected parameters, the metadata of papermill and widgets, stderr and error banners;
    joins text that was printed in pieces; numbers the executions 1, 2, 3 ...; folds solutions in Jupyter.

    Args:
      notebook: an nbformat notebook node.
    Returns: the same node.
    """
    banners = {"injected-parameters", "papermill-error-cell-tag"}
    notebook.cells = [cell for cell in notebook.cells if not banners & set(cell.metadata.get("tags", []))]
    notebook.metadata = type(notebook.metadata)(kernelspec=KERNEL, language_info=LANGUAGE)
    count = 0
    for cell in notebook.cells:
        for key in ("papermill", "execution", "collapsed"):
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        if "solution" in cell.metadata.get("tags", []):
            cell.metadata.jupyter = {"source_hidden": True}
        count += 1
        cell.execution_count = count
        cell.outputs = _join_streams(output for output in cell.outputs if output.get("name") != "stderr")
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    return notebook


def commit_outputs(run_folder: str | Path, into: str | Path | None = None) -> list[Path]:
    """Write the outputs of a finished run into the course's notebooks, and its times and verdicts into data/.

    Args:
      run_folder: the folder of a run (`iptkit run --out`), with NN_*.ipynb and timings.json.
      into: folder of the committed notebooks; the default also updates data/timings.json and data/results.
    Returns: the notebooks written.
    Raises: FileNotFoundError if the folder has no timings.json; ValueError if the run is incomplete, not at
      scale "lesson", older than the notebooks' text, or ran several notebooks at a time.
    """
    into = None if into is None else Path(into)
    run_folder = Path(run_folder)
    import nbformat

    timings_file = run_folder / "timings.json"
    if not timings_file.is_file():
        raise FileNotFoundError(
            f"{run_folder} holds no timings.json; give the folder of a run (`iptkit run --out`)"
        )
    timings = reading.read_json(timings_file)
    if timings["scale"] != "lesson" or set(timings["status"].values()) != {"ok"}:
        raise ValueError(f"{run_folder} is no complete run at scale 'lesson'; run it to its end first")
    if timings.get("at_once", 1) > 1:
        raise ValueError(
            f"the notebooks of {run_folder} ran {timings['at_once']} at a time, so their times are those "
            "of a busy machine; run them with --at-once 1"
        )
    drafts = []
    for lesson in select(find(into or own_folder()), timings["status"]):
        executed = nbformat.read(run_folder / lesson.path.name, as_version=4)
        counts = [c.execution_count for c in executed.cells if c.cell_type == "code" and c.source.strip()]
        done = normalise(executed)
        source = nbformat.read(lesson.path, as_version=4)
        if [cell.source for cell in done.cells] != [cell.source for cell in source.cells]:
            raise ValueError(f"{lesson.path.name} was changed after {run_folder} was run; run it again")
        if None in counts:
            raise ValueError(f"{lesson.path.name} in {run_folder} was not run to its end; run it again")
        drafts.append((lesson.path, nbformat.writes(done) + "\n"))
    for path, text in drafts:
        with files.atomic(path) as draft:
            draft.write_text(text, encoding="utf-8")
    if into is None:
        _commit_times(timings)
        claims.add_to_stored(run_folder, "lesson")
    return [path for path, _ in drafts]


def _commit_times(timings: dict[str, Any]) -> None:
    """Write a run's times, and the machine that measured them, into data/timings.json.

    A run of a few lessons adds only those that have no time yet: the times of one table are of one machine.
    """
    from iptkit.models.devices import matmul_speed  # imports torch

    file = paths.data_dir() / "timings.json"
    known = reading.read_json(file) if file.is_file() else {}
    before, new = known.get(timings["scale"], {}), timings["seconds"]
    old = before.get("seconds", {})
    is_most = "teraflops" not in before or 2 * sum(new.values()) > sum({**old, **new}.values())
    merged = {**old, **new} if is_most else {**new, **old}
    known[timings["scale"]] = {
        "seconds": {
            lesson.name: merged[lesson.name] for lesson in find(own_folder()) if lesson.name in merged
        },
        "made_with": timings["made_with"] if is_most else before["made_with"],
        "teraflops": round(matmul_speed(), 3) if is_most else before["teraflops"],
    }
    files.write_json(file, known)


def _join_streams(outputs: Iterable[Any]) -> list[Any]:
    joined: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


if __name__ == "__main__":
    import sys

    try:
        print("\n".join(map(str, commit_outputs(sys.argv[1]))))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"iptkit: {messages.visible(str(error))}")
