"""The web pages of the course and of a run: one page per notebook with its stored outputs, and a first page.

Sphinx, MyST-NB and the PyData theme make them; nothing is executed. A page loads nothing from other places.
Notebooks may contain anything, such as a learner's own text or a library's HTML. So their text is plain
Markdown without Sphinx's directives, only the tags of text, tables and pictures are kept of what they show
(`_clean`), and a content security policy allows no scripts but those of the theme.

    python -m iptkit.course.site FOLDER     writes the site of the whole course, from a checkout
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import sys
import time
import warnings as python_warnings
from collections.abc import Mapping, Sequence
from html import escape, unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from iptkit.course import lessons, reference
from iptkit.course.estimates import clock, expected_seconds
from iptkit.course.lessons import Lesson
from iptkit.storage import files, paths, reading, versions

MAP = "data/results/ipt120.map.json"
TEMPLATES = Path(__file__).resolve().parent / "templates" / "site"
TAGS = frozenset(
    "a abbr aside b blockquote br caption cite code col colgroup dd del details dfn div dl dt em figcaption "
    "figure h1 h2 h3 h4 h5 h6 hr i img input ins kbd li mark ol p pre q s samp section small span strong sub "
    "summary sup table tbody td tfoot th thead tr u ul var wbr".split()
)
ATTRIBUTES = frozenset(
    "alt align aria-label checked class colspan disabled height id open rowspan scope start style tabindex "
    "title width".split()
)
UNSEEN = tuple("script style iframe object embed template noscript link meta base title nav".split())
PICTURES = {"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif"}  # those that become files
PICTURE = re.compile(
    r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]+|(\.\./)*_images/[\w.%-]+"
)
PICTURE_FILE = re.compile(r"""(?:\]\(|src=["']?)([^\s"'()<>]+\.(?:png|jpe?g|gif|webp|svg))""", re.IGNORECASE)
MATH = re.compile(r'<(span|div) class="math ([^"]*)">([^<]*)</\1>')
SIGNATURE = re.compile(r"<dl>\s*((?:<dd>.*?</dd>\s*)+)</dl>", re.DOTALL)
NAVIGATION = re.compile("<nav>.*?</nav>", re.DOTALL)
DIRECTIVE = re.compile(r"([`~]{3,}[ \t]*)\{")
PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
SUMMARY_TAG = "summary"  # tag of the cell whose output the first page shows; default: the first picture
TAGS_OF_CELLS = frozenset(
    {SUMMARY_TAG, "hide-input", "hide-output", "hide-cell", "remove-input", "remove-cell"}
)
OWN_SCRIPTS = "'theme-scripts'"  # stands in a page until the scripts inside the theme's pages are known
POLICY = (
    f"default-src 'none'; script-src 'self' file: {OWN_SCRIPTS}; style-src 'self' file: 'unsafe-inline'; "
    "img-src 'self' file: data:; font-src 'self' file:; base-uri 'none'; form-action 'self' file:"
)
TEXTS = {
    "Guides": ["docs/results.md", "docs/tasks.md", "docs/prompts.md", "docs/*.md"],
    "Project": [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "benchmarks/*.md",
        "data/results/README.md",
        "tests/pretend_cuda/README.md",
    ],
}
UNNEEDED = (".buildinfo", "objects.inv", ".gitignore", "webpack-macros.html")
SETTINGS: dict[str, Any] = {
    "project": "iptkit",
    "extensions": ["myst_nb", "sphinx.ext.autodoc", "iptkit.course.site"],
    "nb_execution_mode": "off",
    "nb_merge_streams": True,
    "nb_render_text_lexer": "none",
    "myst_enable_extensions": ["amsmath", "dollarmath", "html_image", "strikethrough", "tasklist"],
    "myst_disable_syntax": [
        "front_matter",
        "myst_block_break",
        "myst_line_comment",
        "myst_role",
        "myst_target",
    ],
    "myst_dmath_allow_digits": False,
    "myst_dmath_allow_space": False,
    "myst_heading_anchors": 4,
    "suppress_warnings": ["myst.header", "ref.python"],
    "default_role": "py:obj",
    "smartquotes": False,
    "toc_object_entries_show_parents": "hide",
    "add_module_names": False,
    "autodoc_member_order": "bysource",
    "autodoc_preserve_defaults": True,
    "autodoc_typehints_format": "short",
    "python_maximum_signature_line_length": 80,
    "html_theme": "pydata_sphinx_theme",
    "html_theme_options": {
        "logo": {"text": "iptkit"},
        "navbar_center": [],
        "navbar_end": ["theme-switcher"],
        "article_header_start": [],
        "secondary_sidebar_items": ["page-toc"],
        "primary_sidebar_end": [],
        "footer_start": [],
        "footer_end": [],
        "search_bar_text": "Search",
        "show_toc_level": 2,
    },
    "html_context": {"default_mode": "auto"},
    "html_math_renderer": "mathml",
    "html_sidebars": {"**": ["contents.html"]},
    "html_static_path": [str(TEMPLATES / "static")],
    "html_css_files": ["site.css"],
    "templates_path": [str(TEMPLATES)],
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_show_search_summary": False,  # it reads other pages, which browsers refuse for files
    "html_domain_indices": False,
    "html_use_index": False,
    "html_permalinks_icon": "#",
}


def check() -> None:
    """Make sure that pages can be written.

    Raises: ImportError if a package is missing or incomplete.
    """
    names = ("bleach.css_sanitizer", "bs4", "myst_nb.sphinx_ext", "pydata_sphinx_theme", "sphinx.application")
    for name in names:
        importlib.import_module(name)


def write_times(
    out: Path, scale: str, seconds: Mapping[str, float], status: Mapping[str, str], at_once: int
) -> None:
    """Write timings.json of a run.

    Args:
      out: the run's folder.
      scale: the run's scale.
      seconds: time of each notebook that has run, by name.
      status: "ok", "failed" or "stopped" for each notebook that has run, by name.
      at_once: how many notebooks ran at a time.
    """
    made_with = dict(_made_with())
    timings = {
        "scale": scale,
        "at_once": at_once,
        "seconds": seconds,
        "status": status,
        "made_with": made_with,
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


def write_run(
    out: Path,
    course: Sequence[Lesson],
    scale: str,
    seconds: Mapping[str, float],
    status: Mapping[str, str],
    whole: tuple[str, float],
) -> list[str]:
    """Write the pages of a run: index.html, and one for each notebook that has run.

    Args:
      out: the run's folder, with the executed notebooks.
      course: all notebooks in order.
      scale: the run's scale.
      seconds: time of each notebook that has run, by name.
      status: "ok", "failed" or "stopped" for each notebook that has run, by name.
      whole: title and seconds of the last line of the table.
    Returns: warnings of Sphinx.
    """
    title = f"iptkit, scale {scale}"
    with files.scratch(out, ".unfinished") as place:
        source = _Source(place / "source")
        shown = [
            one
            for one in course
            if one.name in status and source.add(out / one.path.name, one.name, one.path.parent)
        ]
        lines = [
            "| notebook | question | time | status |",
            "|---|---|--:|---|",
            *(
                _row(one, one in shown, seconds.get(one.name), status.get(one.name, "not run"))
                for one in course
            ),
            f"| **{_plain(whole[0])}** | | {clock(whole[1])} | |",
        ]
        cells = [_text(f"# {_plain(title)}\n\n" + "\n".join(lines))]
        for one in shown:
            heading = f"## [{_plain(f'{one.number}. {one.question}')}]({one.name}.ipynb)"
            cells += source.result(one.name, heading)
        made_with = "\n".join(f"| {_plain(name)} | {_plain(value)} |" for name, value in _made_with())
        cells.append(_text(f"## Made with\n\n| what | value |\n|---|---|\n{made_with}"))
        source.index(cells, {"Notebooks": [one.name for one in shown]})
        warnings = _build(source, place / "site", title)
        for one in course:
            if one not in shown:
                (out / f"{one.name}.html").unlink(missing_ok=True)
        _move(place / "site", out)
    return warnings


def write_course(out: Path, root: Path = paths.PACKAGE.parent) -> list[str]:
    """Write the site of the course: notebooks with their stored outputs, texts, reference of the library.

    Args:
      out: the site's folder.
      root: a checkout, for notebooks and texts.
    Returns: warnings of Sphinx.
    Raises: FileNotFoundError if `root` is no checkout.
    """
    if not (root / "docs").is_dir():
        raise FileNotFoundError(f"{root} is no checkout of iptkit: it has no folder docs")
    course, seconds = lessons.find(root / "notebooks"), expected_seconds("lesson")
    texts = {
        group: [*dict.fromkeys(file for name in names for file in sorted(root.glob(name)))]
        for group, names in TEXTS.items()
    }
    with files.scratch(_folder(out), ".unfinished") as place:
        source = _Source(place / "source")
        for one in course:
            source.add(one.path, f"notebooks/{one.name}", one.path.parent)
        pictures = [*root.glob("docs/**/*.svg"), *root.glob("docs/**/*.png")]
        for file in [*sum(texts.values(), []), *pictures]:
            source.copy(file, file.relative_to(root))
        lines = [
            f"| {one.number} | [{_plain(one.question)}](notebooks/{one.name}.ipynb) "
            f"| {clock(seconds[one.name]) if one.name in seconds else ''} |"
            for one in course
        ]
        front = (TEMPLATES / "front.md").read_text(encoding="utf-8").replace("LESSONS", "\n".join(lines))
        pages = {name: [_docname(file.relative_to(root)) for file in group] for name, group in texts.items()}
        api = [f"api/{name}" for name in reference.write(_folder(source.folder / "api"))]
        notebooks = [f"notebooks/{one.name}" for one in course]
        if (root / MAP).is_file():
            source.add_map(root / MAP)
            pages["Guides"].insert(1, "map")
        source.index([_text(front)], {"Lessons": notebooks, **pages, "Library": api})
        warnings = _build(source, place / "site", "iptkit")
        _move(place / "site", out)
    return warnings


def _folder(place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    return place


def _docname(file: Path) -> str:
    return file.with_suffix("").as_posix()


def _made_with() -> list[tuple[str, str]]:
    return [("date", time.strftime("%Y-%m-%d %H:%M")), *versions.rows()]


def _plain(text: str) -> str:
    """Text as Markdown that shows it as it is."""
    return PUNCTUATION.sub(r"\\\1", " ".join(text.split()))


def _row(lesson: Lesson, has_page: bool, seconds: float | None, status: str) -> str:
    """A lesson's line in the table of a run."""
    name = f"[{_plain(lesson.title)}]({lesson.name}.ipynb)" if has_page else _plain(lesson.title)
    shown = _plain(status) if status in ("ok", "not run") else f'<span class="failed">{escape(status)}</span>'
    return f"| {name} | {_plain(lesson.question)} | {'' if seconds is None else clock(seconds)} | {shown} |"


def _text(source: str) -> Any:
    from nbformat.v4 import new_markdown_cell

    return new_markdown_cell(source)


class _Source:
    """The folder that Sphinx reads, with notebooks reduced to what a page shows."""

    def __init__(self, folder: Path) -> None:
        self.folder = _folder(folder)
        self.alts: dict[str, str] = {}  # descriptions of pictures, by the digest that names their file
        self._cells: dict[str, list[Any]] = {}

    def copy(self, file: Path, name: Path) -> None:
        """Copy a file to a place in the folder."""
        target = self.folder / name
        _folder(target.parent)
        shutil.copyfile(file, target)

    def add(self, notebook: Path, name: str, pictures: Path) -> bool:
        """Add a notebook as the page `name`; False if the file holds no complete notebook.

        Args:
          notebook: the file.
          name: where its page is in the site, without an ending.
          pictures: folder of the pictures that its text names.
        """
        import nbformat

        broken = (OSError, ValueError, KeyError, TypeError, AttributeError, nbformat.ValidationError)
        try:
            read = nbformat.v4.reads(reading.read_text(notebook))
            nbformat.validate(read)
        except broken:
            return False
        cells = [
            self._cell(cell, Path(name).parent, pictures) for cell in read.cells if cell.cell_type != "raw"
        ]
        if not (cells and cells[0].source.startswith("# ")):
            cells.insert(0, _text(f"# {_plain(Lesson(notebook).title)}"))
        self._cells[name] = cells
        self._write(cells, name)
        return True

    def result(self, name: str, heading: str) -> list[Any]:
        """Cells with the outputs of a notebook's summary cell, else its first picture; else none."""
        from nbformat.v4 import new_code_cell

        cells = [cell for cell in self._cells[name] if cell.cell_type == "code"]
        summary = [one for cell in cells if SUMMARY_TAG in cell.metadata.tags for one in cell.outputs]
        pictures = [one for cell in cells for one in cell.outputs if "image/png" in one.get("data", {})]
        shown = [
            one
            for one in summary or pictures[:1]
            if one.output_type == "display_data" or one.get("name") == "stdout"
        ]
        made = new_code_cell("...", metadata={"tags": ["remove-input"]}, outputs=shown)
        return [_text(heading), made] if shown else []

    def add_map(self, stored: Path) -> None:
        """Add the page of the map of tasks; its script is among the static files."""
        made = reading.read_json(stored)
        data = json.dumps({name: made[name] for name in ("points", "walks", "examples")})
        values = {
            "TEST_EXAMPLES": str(made["test examples"]),
            "SHARE": f"{made['share']:.0%}",
            "MAP_DATA": data.replace("</", "<\\/"),  # nothing in it ends the page's script
        }
        text = (TEMPLATES / "map.md").read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace(name, value)
        (self.folder / "map.md").write_text(text, encoding="utf-8")

    def index(self, cells: list[Any], contents: Mapping[str, Sequence[str]]) -> None:
        """Write the first page: its cells, and the groups of pages that the side of every page lists."""
        trees = [
            "\n".join(["```{toctree}", ":hidden:", f":caption: {name}", "", *pages, "```"])
            for name, pages in contents.items()
        ]
        self._write([*cells, *map(_text, trees)], "index")

    def _write(self, cells: list[Any], name: str) -> None:
        import nbformat

        metadata = {"kernelspec": lessons.KERNEL, "language_info": lessons.LANGUAGE}
        target = self.folder / f"{name}.ipynb"
        _folder(target.parent)
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), target)

    def _cell(self, cell: Any, folder: Path, pictures: Path) -> Any:
        """A cell without metadata and code that would change how the page is made."""
        from nbformat.v4 import new_code_cell

        if cell.cell_type == "markdown":
            text = NAVIGATION.sub("", cell.source)
            for name, data in cell.get("attachments", {}).items():
                for kind, ending in PICTURES.items():
                    if kind in data and (content := _decoded(data[kind])):
                        file = f"{hashlib.sha256(content).hexdigest()}{ending}"
                        (_folder(self.folder / folder) / file).write_bytes(content)
                        text = text.replace(f"attachment:{name}", file)
            for name in PICTURE_FILE.findall(text):
                found = (pictures / unquote(name)).resolve()
                if (
                    found.is_relative_to(pictures.resolve())
                    and found.is_file()
                    and ".." not in Path(name).parts
                ):
                    self.copy(found, folder / unquote(name))
            return _text(DIRECTIVE.sub(r"\1\\{", text))
        tags = set(cell.metadata.get("tags", []))
        metadata: dict[str, Any] = {"tags": sorted(tags & TAGS_OF_CELLS)}
        if "solution" in tags:
            prompts = {"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
            metadata |= {"tags": ["hide-cell"], "mystnb": prompts}
        outputs = [made for one in cell.outputs if (made := self._output(one))]
        return new_code_cell(cell.source, metadata=metadata, outputs=outputs)

    def _output(self, output: Any) -> Any:
        """An output in the best form that a page can show, or None."""
        from nbformat.v4 import new_output

        if output.output_type == "stream":
            return new_output("stream", name=output.name, text=output.text)
        if output.output_type == "error":
            given = {key: output[key] for key in ("ename", "evalue", "traceback")}
            return new_output("error", **given)
        data = {kind: value for kind, value in output.data.items() if isinstance(value, str)}
        for kind in PICTURES:
            if kind in data:
                content = _decoded(data[kind])
                described = output.metadata.get(kind, {})
                alt = described.get("alt", "") if isinstance(described, dict) else ""
                self.alts[hashlib.sha256(content).hexdigest()] = str(alt)
                return new_output("display_data", data={kind: data[kind]}) if content else None
        for kind, content in (
            ("image/svg+xml", data.get("image/svg+xml", "").encode()),
            ("image/webp", _decoded(data.get("image/webp", ""))),
        ):
            if content:  # neither becomes a file: a browser would run the scripts of an SVG file
                encoded = base64.b64encode(content).decode()
                return new_output(
                    "display_data", data={"text/html": f'<img src="data:{kind};base64,{encoded}" alt="">'}
                )
        for kind in ("text/html", "text/markdown", "text/latex", "text/plain"):
            if kind in data:
                text = DIRECTIVE.sub(r"\1\\{", data[kind]) if kind == "text/markdown" else data[kind]
                return new_output("display_data", data={kind: text})
        return None


def _decoded(data: str) -> bytes:
    """The bytes of a picture; none if the text is not in base64."""
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except ValueError:
        return b""


def _build(source: _Source, out: Path, title: str) -> list[str]:
    """Let Sphinx write the pages; returns its warnings."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    said = io.StringIO()
    settings = {**SETTINGS, "html_title": title, "iptkit_alts": source.alts}
    with patch_docutils(), docutils_namespace(), python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # extensions that use each other's older names
        app = Sphinx(
            source.folder, None, out, out.with_name("doctrees"), "html", settings, status=None, warning=said
        )
        app.build()
    own = re.findall(r"<script[^>]*>([^<]+)</script>", (out / "search.html").read_text(encoding="utf-8"))
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in own]
    scripts = " ".join(f"'sha256-{one}'" for one in digests)
    for file in out.rglob("*.html"):
        file.write_text(file.read_text(encoding="utf-8").replace(OWN_SCRIPTS, scripts), encoding="utf-8")
    return said.getvalue().splitlines()


def _move(made: Path, out: Path) -> None:
    """Move a site's files to their places, each complete at any time; the first page is the last of them."""
    done = [
        file
        for file in made.rglob("*")
        if file.is_file() and file.name not in UNNEEDED and file.suffix != ".map"
    ]
    for file in sorted(done, key=lambda file: (file.suffix == ".html", file == made / "index.html")):
        target = out / file.relative_to(made)
        _folder(target.parent)
        os.replace(file, target)


def _clean(html: str) -> str:
    """HTML reduced to TAGS; other tags are shown as text, those in UNSEEN removed with their content."""
    import bleach
    from bleach.css_sanitizer import CSSSanitizer
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(html, "html.parser")
    for element in soup(UNSEEN):
        element.decompose()
    for box in soup("input"):
        if box.get("type") == "checkbox":
            box["aria-label"] = "done" if box.has_attr("checked") else "to do"
        else:
            box.decompose()
    for picture in soup("img", alt=False):
        picture["alt"] = ""

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


def _mathml(found: re.Match[str]) -> str:
    """A formula in LaTeX as MathML; as code if it has errors or unknown commands."""
    from docutils.utils.math.latex2mathml import tex2mathml
    from sphinx.util import logging

    tex, is_block = unescape(found[3]), found[1] == "div"
    try:
        made = tex2mathml(tex, as_block=is_block)
    except Exception as error:  # docutils raises MathError, and whatever broken formulas lead to
        logging.getLogger(__name__).warning("the formula %s cannot be shown: %s", tex, error)
        made = f"<code>{escape(tex)}</code>"
    scrolls = " pst-scrollable-table-container" if is_block else ""  # the theme's script makes it focusable
    return f'<{found[1]} class="math{scrolls}">{made}</{found[1]}>'


def _lines(found: re.Match[str]) -> str:
    """The lines of a long signature, which Sphinx writes as a list of definitions without terms."""
    lines = found[1].replace("<dd>", "<span>").replace("</dd>", "</span>")
    return f'<span class="sig-lines">{lines}</span>'


def setup(app: Any) -> dict[str, Any]:
    """Register what this module adds to Sphinx, which calls it.

    Args:
      app: Sphinx's application.
    """
    from docutils import nodes
    from sphinx.transforms import SphinxTransform

    class Tidy(SphinxTransform):
        """Removes HTML from headings and empty heads of tables; gives pictures a description and a link."""

        default_priority = 200

        def apply(self, **_: Any) -> None:
            for title in self.document.findall(nodes.title):
                for raw in list(title.findall(nodes.raw)):
                    raw.parent.replace(raw, nodes.Text(raw.astext()))
            is_notebook = self.env.doc2path(self.env.docname).suffix == ".ipynb"
            for group in self.document.findall(nodes.tgroup):
                head = next(group.findall(nodes.thead), None)
                if head is not None and not head.astext().strip():  # the first column names the rows
                    group.remove(head)
                    next(group.findall(nodes.colspec))["stub"] = 1
            for image in self.document.findall(nodes.image):
                image["alt"] = image.get("alt") or self.config.iptkit_alts.get(Path(image["uri"]).stem, "")
                file = Path(self.env.relfn2path(image["uri"])[1])
                if file.is_file() and not (is_notebook and file.suffix == ".svg"):
                    image["scale"] = 100  # makes Sphinx link the file

    def formula(tag: str) -> Any:
        def visit(translator: Any, node: Any) -> None:
            translator.body.append(f'<{tag} class="math tex">{escape(node.astext())}</{tag}>')
            raise nodes.SkipNode

        return visit, None

    def page(_app: Any, name: str, _template: str, context: dict[str, Any], tree: Any) -> None:
        context["metatags"] = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        # of the theme, different on each page, so that the policy would refuse them
        context["script_files"] = [one for one in context["script_files"] if "body" not in one.attributes]
        if tree is not None:
            is_notebook = app.env.doc2path(name).suffix == ".ipynb"
            body = context["body"]
            context["body"] = MATH.sub(_mathml, _clean(body) if is_notebook else SIGNATURE.sub(_lines, body))

    def docstring(_app: Any, _kind: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
        lines[:] = list(reference.as_rst(lines))

    app.add_config_value("iptkit_alts", {}, "")
    app.add_transform(Tidy)
    app.add_html_math_renderer("mathml", formula("span"), formula("div"))
    app.connect("html-page-context", page, priority=900)  # after the theme
    app.connect("autodoc-process-docstring", docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    found = write_course(Path(sys.argv[1]))
    sys.exit("\n".join(found) if found else 0)
