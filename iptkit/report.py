"""The web pages of a run: one per notebook, and index.html with what was asked, what it took, what came out.

Pages are whole in themselves: pictures are inside, nothing is fetched from anywhere.
"""

import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from iptkit import files, paths, stamp
from iptkit.lessons import Lesson
from iptkit.status import clock

TEMPLATES = paths.PACKAGE / "templates"
SUMMARY_TAG = (
    "summary"  # a cell whose output stands for its notebook on the index page; else its first picture
)


def write(
    lesson: Lesson,
    course: Sequence[Lesson],
    scale: str,
    out: Path,
    seconds: dict,
    status: dict,
    at_once: int,
    elapsed: float,
) -> None:
    """Write the page of a notebook that has just run, index.html and timings.json.

    Args:
      lesson, course: the notebook and all notebooks in order.
      scale, out: the run's scale and folder.
      seconds, status: by notebook name, for those that have run.
      at_once: how many ran at a time, so what the seconds mean.
      elapsed: seconds since the run began, told in place of their sum if several ran at a time.
    """
    place = course.index(lesson)
    neighbours = [course[i] if 0 <= i < len(course) else None for i in (place - 1, place + 1)]
    if (out / lesson.path.name).is_file():
        page(lesson, out / lesson.path.name, *neighbours)
    made_with = [("date", time.strftime("%Y-%m-%d %H:%M")), *stamp.rows()]
    sum_of_all = "together", sum(seconds.values())
    whole = sum_of_all if at_once == 1 else (f"this run, {at_once} at a time", elapsed)
    index(out, f"iptkit, scale {scale}", course, seconds, status, made_with, whole)
    timings = {
        "scale": scale,
        "at_once": at_once,
        "seconds": seconds,
        "status": status,
        "made_with": dict(made_with),
    }
    files.write_json(out / "timings.json", timings)


def earlier(out: Path, scale: str, course: Sequence[Lesson]) -> tuple[dict[str, float], dict[str, str]]:
    """Return seconds and status of the notebooks that an earlier run at this scale left in the folder."""
    try:
        timings = files.read_json(out / "timings.json")
        names = [
            one.name for one in course if one.name in timings["seconds"] and one.name in timings["status"]
        ]
        if timings["scale"] == scale:
            return (
                {name: float(timings["seconds"][name]) for name in names},
                {name: str(timings["status"][name]) for name in names},
            )
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no earlier run, or none to read
    return {}, {}


def page(
    lesson: Lesson, notebook: Path, previous: Lesson | None = None, following: Lesson | None = None
) -> Path:
    """Write the web page of an executed notebook beside it.

    Args:
      lesson: the notebook's source.
      notebook: the executed notebook.
      previous, following: its neighbours on this course, for links.
    Returns: path of the page.
    """
    from nbconvert import HTMLExporter

    links = ['<a href="index.html">all notebooks</a>']
    links += [
        f'<a href="{escape(other.name)}.html">{arrow} {escape(other.title)}</a>'
        for arrow, other in (("&larr;", previous), ("&rarr;", following))
        if other
    ]
    course = {"heading": f"{lesson.number}. {lesson.question}", "links": " ".join(links), "style": _style()}
    exporter = HTMLExporter(
        template_name="report",
        extra_template_basedirs=[str(TEMPLATES)],
        embed_images=True,
        exclude_anchor_links=True,
    )
    html, _ = exporter.from_filename(str(notebook), resources={"course": course})
    target = notebook.with_suffix(".html")
    _write(target, html)
    return target


def index(
    out: Path,
    title: str,
    lessons: Sequence[Lesson],
    seconds: Mapping[str, float],
    status: Mapping[str, str],
    stamp: Sequence[tuple[str, str]],
    whole: tuple[str, float],
) -> Path:
    """Write index.html of a run.

    Args:
      out: folder of the run.
      title: heading of the page.
      lessons: all notebooks of the course.
      seconds, status: by notebook name, for those that have run.
      stamp: name and value of what the run was made with.
      whole: words and seconds of the last line.
    Returns: path of the page.
    """
    lines = [
        _row(out, lesson, seconds.get(lesson.name), status.get(lesson.name, "not run")) for lesson in lessons
    ]
    parts = [
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_style()}</style></head><body><main><h1>{escape(title)}</h1>",
        "<table><thead><tr><th>notebook</th><th>question</th><th>time</th><th>status</th></tr></thead><tbody>",
        *lines,
        f'<tr><th>{whole[0]}</th><th></th><td class="number">{clock(whole[1])}</td><th></th></tr>',
        "</tbody></table>",
        *(_result(out, lesson) for lesson in lessons if lesson.name in status),
        "<section><h2>Made with</h2><table><tbody>",
        *(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in stamp),
        "</tbody></table></section></main></body></html>\n",
    ]
    _write(out / "index.html", "\n".join(part for part in parts if part))
    return out / "index.html"


def _write(path: Path, html: str) -> None:
    with files.atomic(path) as draft:
        draft.write_text(html, encoding="utf-8")


def _row(out: Path, lesson: Lesson, seconds: float | None, status: str) -> str:
    name = escape(lesson.title)
    if (out / f"{lesson.name}.html").is_file():
        name = f'<a href="{escape(lesson.name)}.html">{name}</a>'
    look = ' class="failed"' if status not in ("ok", "not run") else ""
    time = "" if seconds is None else clock(seconds)
    return (
        f'<tr><td>{name}</td><td>{escape(lesson.question)}</td><td class="number">{time}</td>'
        f"<td{look}>{escape(status)}</td></tr>"
    )


def _result(out: Path, lesson: Lesson) -> str:
    """Return the summary cell's outputs of an executed notebook, else its first picture, else nothing."""
    import nbformat

    try:
        notebook = nbformat.read(out / f"{lesson.name}.ipynb", as_version=4)
    except (OSError, ValueError):  # absent, or cut off in the middle of writing
        return ""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    summary = [cell for cell in cells if SUMMARY_TAG in cell.metadata.get("tags", [])]
    pictures = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
    outputs = [output for cell in summary for output in cell.outputs] or pictures[:1]
    shown = [html for html in map(_output, outputs) if html]
    link = f'<a href="{escape(lesson.name)}.html">{escape(lesson.number)}. {escape(lesson.question)}</a>'
    return f"<section><h2>{link}</h2>\n" + "\n".join(shown) + "</section>" if shown else ""


def _output(output) -> str:
    if output.output_type == "stream":
        return f"<pre>{escape(output.text)}</pre>" if output.name == "stdout" else ""
    data = output.get("data", {})
    if "image/png" in data:
        alt = output.metadata.get("image/png", {}).get("alt", "")
        return f'<img src="data:image/png;base64,{data["image/png"].strip()}" alt="{escape(alt)}">'
    if "text/html" in data:
        return data["text/html"]
    return f"<pre>{escape(data['text/plain'])}</pre>" if "text/plain" in data else ""


def _style() -> str:
    return (TEMPLATES / "report" / "style.css").read_text(encoding="utf-8")
