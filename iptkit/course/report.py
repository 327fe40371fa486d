"""The web pages of a run: one per notebook, and index.html with every notebook's question, time and result.

A page is self-contained: it holds its pictures and loads nothing. Notebooks may contain anything, such as a
learner's own text or a library's HTML, so only the tags of text, tables and pictures are kept (`_clean`), and
a content security policy forbids scripts and connections.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from iptkit.course.estimates import clock
from iptkit.course.lessons import Lesson
from iptkit.storage import files, reading, versions

TEMPLATES = Path(__file__).resolve().parent / "templates"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
TAGS = frozenset(
    "a abbr b blockquote br caption cite code col colgroup dd del details dfn div dl dt em figcaption figure "
    "h1 h2 h3 h4 h5 h6 hr i img input ins kbd li mark ol p pre q s samp section small span strong sub "
    "summary sup table tbody td tfoot th thead tr u ul var".split()
)
ATTRIBUTES = frozenset(
    "alt align checked class colspan disabled height id open rowspan scope start style title width".split()
)
UNSEEN = tuple("script style iframe object embed template noscript link meta base title".split())
PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]+")
NAVIGATION = re.compile("<nav>.*?</nav>", re.DOTALL)
SUMMARY_TAG = "summary"  # tag of the cell whose output the index page shows; default: the first picture


def write(
    lesson: Lesson,
    course: Sequence[Lesson],
    scale: str,
    out: Path,
    seconds: dict[str, float],
    status: dict[str, str],
    at_once: int,
    elapsed: float,
) -> None:
    """Write the page of a notebook that has just run, index.html and timings.json.

    Args:
      lesson: the notebook.
      course: all notebooks in order.
      scale: the run's scale.
      out: the run's folder.
      seconds: time of each notebook that has run, by name.
      status: "ok", "failed" or "stopped" for each notebook that has run, by name.
      at_once: how many notebooks ran at a time.
      elapsed: seconds since the run began; shown instead of the sum if several ran at a time.
    """
    if (out / lesson.path.name).is_file():
        page(lesson, out / lesson.path.name, course)
        place = course.index(lesson)
        for other in [*course[max(0, place - 1) : place], *course[place + 1 : place + 2]]:
            _link_again(out, other, course)
    made_with = [("date", time.strftime("%Y-%m-%d %H:%M")), *versions.rows()]
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
    """Seconds and status of the notebooks that an earlier run at this scale left in the folder."""
    try:
        timings = reading.read_json(out / "timings.json")
        names = [
            one.name for one in course if one.name in timings["seconds"] and one.name in timings["status"]
        ]
        if timings["scale"] == scale:
            return (
                {name: float(timings["seconds"][name]) for name in names},
                {name: str(timings["status"][name]) for name in names},
            )
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no earlier run, or a damaged one
    return {}, {}


def page(lesson: Lesson, notebook: Path, course: Sequence[Lesson] = ()) -> Path:
    """Write the web page of an executed notebook beside it.

    Args:
      lesson: the notebook's source.
      notebook: the executed notebook.
      course: all notebooks in order, for links to the neighbours whose pages are in the same folder.
    Returns: path of the page.
    """
    import nbformat

    heading = f"{lesson.number}. {lesson.question}"
    # pictures that the text links to are next to the source
    resources = {"metadata": {"path": str(lesson.path.parent)}}
    node = nbformat.read(notebook, as_version=4)
    cells, resources = exporter().from_notebook_node(node, resources=resources)
    target = notebook.with_suffix(".html")
    navigation = _navigation(target.parent, lesson, course)
    _write(target, _page(heading, cells, "\n".join(resources["inlining"]["css"]), navigation))
    return target


def exporter() -> Any:
    """Make nbconvert's exporter of a notebook's cells.

    Raises: ImportError or ValueError if nbconvert is missing or incomplete.
    """
    from jinja2 import pass_context
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        """Embeds the pictures of an HTML block and leaves the rest of the block as it is.

        nbconvert would parse the whole block, which closes a <details> that ends in a later block.
        """

        def _html_embed_images(self, html: str) -> str:
            embed = super()._html_embed_images
            return re.sub(r"<img\b[^>]*>", lambda picture: embed(picture[0]), html)

        def _embed_image_or_attachment(self, src: str) -> str:
            is_absent = (
                src.startswith("attachment:") and src.removeprefix("attachment:") not in self.attachments
            )
            return "" if is_absent else super()._embed_image_or_attachment(src)

    class Exporter(HTMLExporter):
        def default_filters(self) -> Any:
            yield from super().default_filters()
            yield "markdown2html", self.rendered

        @pass_context
        def rendered(self, context: Any, source: str) -> str:
            attachments = context.get("cell", {}).get("attachments", {})
            path = context["resources"]["metadata"]["path"]
            renderer = Renderer(
                escape=False,
                attachments=attachments,
                embed_images=True,
                exclude_anchor_links=True,
                path=path,
            )
            return MarkdownWithMath(renderer).render(source)

    made = Exporter(template_name="report", extra_template_basedirs=[str(TEMPLATES)])
    made.template  # noqa: B018 - loads the template now
    return made


def _page(title: str, main: str, style: str = "", navigation: str = "") -> str:
    """A complete page around `main`, which is reduced to text, tables and pictures."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{style}\n{_style()}</style></head><body>",
            *([navigation] if navigation else []),
            f"<main>{_clean(main)}</main>",
            *([navigation] if navigation else []),
            "</body></html>\n",
        ]
    )


def _clean(html: str) -> str:
    """HTML reduced to TAGS; other tags are shown as text, those in UNSEEN removed with their content."""
    import bleach
    from bleach.css_sanitizer import CSSSanitizer
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(html, "html.parser")
    for element in soup(UNSEEN):
        element.decompose()

    def is_allowed(tag: str, name: str, value: str) -> bool:
        if name == "src":
            return tag == "img" and bool(PICTURE.fullmatch(value))
        if name == "href":
            return tag == "a" and not value.strip().lower().startswith("data:")
        return name in ATTRIBUTES or (tag, name, value) == ("input", "type", "checkbox")

    return bleach.clean(
        soup.decode(formatter=escape),  # with &quot;, as bleach escapes values in single quotes twice
        tags=TAGS,
        attributes=is_allowed,
        protocols={"http", "https", "mailto", "data"},
        css_sanitizer=CSSSanitizer(),
    )


def _navigation(out: Path, lesson: Lesson, course: Sequence[Lesson]) -> str:
    """Links from a lesson's page to the index and to the neighbours that have a page."""
    links, place = ['<a href="index.html">all notebooks</a>'], course.index(lesson) if course else 0
    for arrow, other in (
        ("&larr;", course[max(0, place - 1) : place]),
        ("&rarr;", course[place + 1 : place + 2]),
    ):
        links += [
            f'<a href="{escape(one.name)}.html">{arrow} {escape(one.title)}</a>'
            for one in other
            if (out / f"{one.name}.html").is_file()
        ]
    return f"<nav>{' '.join(links)}</nav>"


def _link_again(out: Path, lesson: Lesson, course: Sequence[Lesson]) -> None:
    """Update the links of an existing page after another page has been written."""
    target = out / f"{lesson.name}.html"
    if target.is_file():
        links = _navigation(out, lesson, course)
        _write(target, NAVIGATION.sub(lambda _: links, target.read_text(encoding="utf-8")))


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
      seconds: time of each notebook that has run, by name.
      status: "ok", "failed" or "stopped" for each notebook that has run, by name.
      stamp: name and value of the versions and the machine of the run.
      whole: title and seconds of the last line of the table.
    Returns: path of the page.
    """
    lines = [
        _row(out, lesson, seconds.get(lesson.name), status.get(lesson.name, "not run")) for lesson in lessons
    ]
    parts = [
        f"<h1>{escape(title)}</h1>",
        "<table><thead><tr><th>notebook</th><th>question</th><th>time</th><th>status</th></tr></thead><tbody>",
        *lines,
        f'<tr><th>{escape(whole[0])}</th><th></th><td class="number">{clock(whole[1])}</td><th></th></tr>',
        "</tbody></table>",
        *(_result(out, lesson) for lesson in lessons if lesson.name in status),
        "<section><h2>Made with</h2><table><tbody>",
        *(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in stamp),
        "</tbody></table></section>",
    ]
    _write(out / "index.html", _page(title, "\n".join(part for part in parts if part)))
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
    """The outputs of an executed notebook's summary cell, else its first picture, else nothing."""
    import nbformat

    path, broken = out / f"{lesson.name}.ipynb", (ValueError, KeyError, TypeError, AttributeError)
    try:
        notebook = nbformat.v4.reads(reading.read_text(path))
        nbformat.validate(notebook)
    except (OSError, nbformat.ValidationError, *broken):  # absent, or no complete notebook
        return ""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    summary = [cell for cell in cells if SUMMARY_TAG in cell.metadata.get("tags", [])]
    pictures = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
    outputs = [output for cell in summary for output in cell.outputs] or pictures[:1]
    shown = [html for html in map(_output, outputs) if html]
    heading = f"{escape(lesson.number)}. {escape(lesson.question)}"
    if (out / f"{lesson.name}.html").is_file():
        heading = f'<a href="{escape(lesson.name)}.html">{heading}</a>'
    return f"<section><h2>{heading}</h2>\n" + "\n".join(shown) + "</section>" if shown else ""


def _output(output: Any) -> str:
    if output.output_type == "stream":
        return f"<pre>{escape(output.text)}</pre>" if output.name == "stdout" else ""
    data = output.get("data", {})
    if "image/png" in data:
        alt = output.metadata.get("image/png", {}).get("alt", "")
        return f'<img src="data:image/png;base64,{escape(str(data["image/png"]))}" alt="{escape(str(alt))}">'
    if "text/html" in data:
        return f"<div>{data['text/html']}</div>"
    return f"<pre>{escape(data['text/plain'])}</pre>" if "text/plain" in data else ""


def _style() -> str:
    return (TEMPLATES / "report" / "style.css").read_text(encoding="utf-8")
