"""The pages of a run and of the course, from notebooks with unknown content, and the site of this checkout.

Sphinx runs once for each of the three.

The last tests open the pages in a browser: Chromium, found on PATH.
"""

import base64
import json
import re
import subprocess
import sys

import nbformat
import pytest
import sites
import toy_notebooks as toy
from browsers import CHROMIUM
from nbformat.v4 import new_output

from iptkit.course import lessons, reference, site
from iptkit.storage import paths

PNG = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAQAAAADCAIAAAA7ljmRAAAAEklEQVR4nGP4z8AARwzEcQCukw/x0F8jngAAAABJRU5ErkJggg=="
    )
).decode()
GIF = "R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw=="
SVG = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><path d='M0 0L9 9'/></svg>"
FORBIDDEN = {"script", "iframe", "object", "embed", "link", "base", "form", "svg", "textarea", "meta"}
ATTACKS = {
    "script": "<script>document.title = 'ran'</script>",
    "handler": "<img src=x onerror=\"document.title='ran'\">",
    "split over blocks": "<div>\n\n<script>\n\ndocument.title = 'ran'\n\n</script>\n\n</div>",
    "link": "[here](javascript:document.title='ran') <a href='java&#10;script:alert(1)'>there</a>",
    "data link": "<a href='data:text/html,<script>1</script>'>there</a>",
    "frame": "<iframe srcdoc='<script>1</script>'></iframe><object data=x></object><embed src=x>",
    "vector": "<svg onload=alert(1)><script>1</script></svg><math><mtext><script>1</script></mtext></math>",
    "base": "<base href='http://127.0.0.1/'><link rel=stylesheet href=x><meta http-equiv=refresh content=0>",
    "form": "<form action='http://127.0.0.1/'><input name=q><button>go</button></form>",
    "other sites": "![far](http://127.0.0.1/x.png) <img src='http://127.0.0.1/y.png' srcset='z 1x'>",
    "style": "<p style='background:url(http://127.0.0.1/x); position:fixed; color:red'>p</p>",
    "mutation": '<noscript><p title="</noscript><img src=x onerror=alert(1)>"></noscript>',
    "end of the page": "</article></main></body></html><script>1</script>",
    "heading": "## <img src=x onerror=\"document.title='ran'\"> <script>1</script>",
    "directive": "```{raw} html\n<script>document.title = 'ran'</script>\n```",
    "markup": "```{eval-rst}\n.. meta::\n   :http-equiv=refresh: 0; url=http://127.0.0.1/\n```",
    "role": "{raw-html}`<script>1</script>` {doc}`index` <span class='math tex'>\\href{javas:1}{x}</span>",
    "formula": "$\\text{<script>1</script>}$ $\\href{javascript:1}{x}$ $$\\unicode{<img src=x onerror=1>}$$",
}
MIMES = ("text/html", "text/markdown", "text/latex", "text/vnd.mermaid", "image/svg+xml")
BREAKING_OUT = '"><script>1</script><img src="x" onerror="alert(1)'
TABLE = "<style scoped>td {color: red}</style><table class='dataframe'><tr><td colspan=2>7</td></tr></table>"
KEPT = (
    "`a < b` & **bold** [link](01_more.ipynb) costs 5 $ or 6 $\n\n"
    "| a | b |\n|---|--:|\n| 1 | 2 |\n\n| | |\n|---|---|\n| row | 3 |\n\n- [x] done\n\n"
    "![gone](attachment:gone.png)\n\n![mine](own.png)\n\n<img src='own.png' alt='too' width='20'>\n\n"
    "![up](../secret.png)\n\n"
    "<span style='font-weight:bold'>heavy</span>\n\n<nav>[before](00_kept.ipynb)</nav>"
)
HINT = "Before.\n\n<details><summary>Hint</summary>\n\nTry *two* words.\n\n- a list\n\n</details>\n\nAfter."
FORMULAS = r"$P \in \mathbb{R}^{n \times d}$ and" + "\n\n" + r"$$L = \frac{1}{n} \sum_{i=1}^{n} x_i$$"


def shown(mime, data, **metadata):
    """An output of a cell."""
    return new_output("display_data", data={mime: data}, metadata={mime: metadata} if metadata else {})


def attacked(attack):
    """Outputs that hold an attack."""
    outputs = [shown(mime, attack) for mime in MIMES]
    outputs.append(shown("text/html", attack, isolated=True))
    outputs.append(shown("application/javascript", "document.title = 'ran'"))
    return [
        *outputs,
        toy.printed(attack),
        new_output("error", ename=attack, evalue=attack, traceback=[attack]),
    ]


def notebooks(place):
    """The notebooks of a run: one of each kind of content, then one of each attack."""
    toy.write(
        place / "00_kept.ipynb",
        "# 00. What is <a> `prompt`?",
        toy.text(KEPT),
        toy.text(HINT),
        toy.text(FORMULAS),
        toy.code("1 < 2", outputs=[shown("text/html", TABLE)]),
        toy.code("plot()", outputs=[shown("image/png", PNG, alt='a "white" square <1>')]),
        toy.code("draw()", outputs=[shown("image/svg+xml", SVG)]),
        toy.code("the_solution()", "solution", outputs=[toy.printed("found")]),
        toy.code("folded()", "hide-input", outputs=[toy.printed("open")]),
        toy.code("x" * 300, outputs=[toy.printed("wide " * 90), toy.printed("careful", name="stderr")]),
    )
    (place / "own.png").write_bytes(base64.b64decode(PNG))
    (place.parent / "secret.png").write_bytes(base64.b64decode(PNG))
    summary = toy.code("print('E', 0.5)", "summary", outputs=[toy.printed("E 0.5\n")])
    toy.write(place / "01_more.ipynb", "# 01. More|less?", toy.text("## Part"), summary)
    error = new_output("error", ename="ValueError", evalue="no such prompt", traceback=["no such prompt"])
    toy.write(place / "02_failed.ipynb", "# 02. Failed?", toy.code("raise", outputs=[error]))
    toy.write(place / "03_stopped.ipynb", "# 03. Stopped?")
    toy.write(place / "04_later.ipynb", "# 04. Later?")
    toy.write(place / "05_cut.ipynb", "# 05. Cut off?")
    for number, (name, attack) in enumerate(ATTACKS.items(), 10):
        cells = [toy.text(attack), toy.code("1", "summary", outputs=attacked(attack)), toy.text("the end")]
        toy.write(
            place / f"{number}_{name.replace(' ', '_')}.ipynb",
            f"# {number}. {attack.splitlines()[0]}?",
            *cells,
        )
    bad = [
        shown("image/png", PNG + BREAKING_OUT),
        shown("image/jpeg", PNG + BREAKING_OUT),
        shown("image/gif", GIF, alt=BREAKING_OUT, width="1 onload=alert(1)", height="2 onclick=alert(1)"),
    ]
    hostile = toy.write(
        place / "80_metadata.ipynb", "# 80. Metadata?", toy.code("1", outputs=bad), toy.code("2")
    )
    raw = json.loads(hostile.read_text(encoding="utf-8"))
    raw["metadata"]["mystnb"] = {"execution_mode": "force"}
    raw["metadata"]["myst"] = {"html_meta": {"http-equiv=refresh": "0; url=http://127.0.0.1/"}}
    raw["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"a": {}}}}
    raw["cells"][-1]["source"] = "open('executed', 'w')"
    hostile.write_text(json.dumps(raw), encoding="utf-8")
    return lessons.find(place)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The pages of a run: two notebooks ended early, one has not run, and the file of one is cut off."""
    place = tmp_path_factory.mktemp("run")
    course, out = notebooks(place / "notebooks"), place / "out"
    out.mkdir()
    for lesson in course:
        nbformat.write(nbformat.read(lesson.path, as_version=4), out / lesson.path.name)
    (out / "05_cut.ipynb").write_text('{"cells": [', encoding="utf-8")
    (out / "04_later.html").write_text("of an earlier run", encoding="utf-8")
    status = dict.fromkeys((lesson.name for lesson in course if lesson.name != "04_later"), "ok")
    status |= {"02_failed": "failed", "03_stopped": "stopped"}
    seconds = dict.fromkeys(status, 61.0)
    site.write_run(out, course, "smoke", seconds, status, ("together", 100.0))
    return out


STEPS = [
    {"score": [i / 2, 1 - i / 2], "log_likelihood": [-i, i - 2], "answer": [f"<b>{i}", "b"]} for i in range(3)
]
MAP = {
    "points": [
        {"task": f"task-{i}", "category": category, "side": "seen", "x": i, "y": i * i}
        for i, category in enumerate(("cls", "mcqa", "qa", "gen", "seq"))
    ],
    "walks": [
        {"first": a, "second": b, "steps": STEPS}
        for a, b in (("task-0", "task-1"), ("task-0", "task-2"), ("task-1", "task-2"))
    ],
    "examples": {f"task-{i}": {"input": f"</script>{i}?", "target": f"{i}!"} for i in range(3)},
    "share": 0.625,
    "test examples": 48,
}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The site of a small checkout, and Sphinx's warnings."""
    root = tmp_path_factory.mktemp("checkout")
    names = ("00_start_here", "90_scoreboard")
    for name in names:
        summary = toy.code("1", "summary", outputs=[shown("image/png", PNG, alt="a square")])
        toy.write(root / "notebooks" / f"{name}.ipynb", f"# {name[:2]}. Why {name}?", summary)
    texts = {
        "docs/results.md": "# Results\n\n[start](../README.md#start) [own](#how)\n\n## How\n\nhow it is done",
        "docs/tasks.md": "# Tasks\n\n[back](../notebooks/00_start_here.ipynb)",
        "docs/prompts.md": "# Prompts\n\nx",
        "README.md": "# iptkit\n\n## Start\n\n![a figure](docs/figure.svg)",
        "docs/figure.svg": SVG,
        "data/results/ipt120.map.json": json.dumps(MAP),
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "packages", lambda: ["training"])
        warnings = site.write_course(root / "site", root)
    return root / "site", warnings


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The site of this checkout, and Sphinx's warnings.

    Made in a process of its own: Sphinx replaces the defaults of the functions that it describes.
    """
    out = tmp_path_factory.mktemp("own") / "site"
    made = subprocess.run(
        [sys.executable, "-m", "iptkit.course.site", out], capture_output=True, text=True, check=False
    )
    return out, made.stderr.splitlines() if made.returncode else []


def pages(out):
    return [file for file in out.rglob("*.html") if file.name != "search.html"]


def test_the_site_of_this_checkout_has_no_fault(own):
    assert own[1] == []
    assert sites.dead_links(own[0]) == []
    figures = {a["src"] for a in sites.Page(own[0] / "docs" / "results.html").named("img")}
    assert any("forest.svg" in source for source in figures)


def test_every_link_leads_somewhere(run, course):
    assert sites.dead_links(run) == [] and sites.dead_links(course[0]) == []
    assert len(pages(run)) > 20 and len(pages(course[0])) > 10


def test_the_checker_of_links_finds_dead_ones(tmp_path):
    html = '<a href="b.html#here">1</a><a href="#no">2</a><img src="c.png"><a href="http://x/y">3</a>'
    (tmp_path / "a.html").write_text(html, encoding="utf-8")
    (tmp_path / "b.html").write_text('<p id="there">', encoding="utf-8")
    assert sites.dead_links(tmp_path) == ["a.html: b.html#here", "a.html: #no", "a.html: c.png"]


def test_a_small_checkout_gives_no_warning(course):
    assert course[1] == []


def test_no_page_loads_anything_from_elsewhere(run, course):
    for file in [*run.rglob("*.html"), *course[0].rglob("*.html")]:
        addresses = sites.loaded(sites.Page(file))
        assert addresses and not [one for one in addresses if re.match(r"(\w+:)?//|(?!data:)\w+:", one)], file
    for file in [*run.rglob("*.css"), *course[0].rglob("*.css")]:
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:|//)", file.read_text(encoding="utf-8")), file


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_that_a_notebook_holds_runs_or_reaches_out(run, attack):
    (file,) = run.glob(f"[0-9][0-9]_{attack.replace(' ', '_')}.html")
    page = sites.article(file)
    assert "the end" in page.said
    check(page)


def check(page):
    """Nothing of an article runs or loads anything."""
    for tag, attributes in page.elements:
        assert tag not in FORBIDDEN, tag
        assert not [name for name in attributes if name.startswith("on") or name in ("srcset", "srcdoc")]
        assert re.match("data:image/|_images/", attributes.get("src", "_images/"))
        assert re.match(r"(?!\s*(java|data))", attributes.get("href", ""), re.IGNORECASE)
        assert "url" not in attributes.get("style", "") and "position" not in attributes.get("style", "")


def test_around_the_text_nothing_of_a_notebook_runs_either(run):
    """Titles and summaries stand in the contents, in links to neighbours, and on the first page."""
    allowed = None
    for file in run.rglob("*.html"):
        page = sites.Page(file)
        inline = re.findall(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", page.html, re.DOTALL)
        allowed = inline if allowed is None else allowed
        assert {*inline} <= {*allowed, *_scripts_of_the_theme(run)}
        assert not [a for tag, a in page.elements if any(name.startswith("on") for name in a)], file
        assert not [a for a in page.named("meta") if a.get("http-equiv", "").lower() == "refresh"], file
        assert (
            page.html.count("</article>") == (file.name != "search.html") and page.html.count("</body>") == 1
        )
    check(sites.article(run / "index.html"))


def _scripts_of_the_theme(run):
    return re.findall(r"<script[^>]*>([^<]+)</script>", (run / "search.html").read_text(encoding="utf-8"))


def test_the_policy_allows_the_themes_own_scripts_only(run):
    for file in run.rglob("*.html"):
        html = file.read_text(encoding="utf-8")
        (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
        assert html.index(policy) < html.index("<script")
        scripts = re.search(r"script-src ([^;]*)", policy)[1].split()
        assert scripts[:2] == ["'self'", "file:"] and all(one.startswith("'sha256-") for one in scripts[2:])
        assert len(scripts) == 2 + len(_scripts_of_the_theme(run)) and "default-src 'none'" in policy


def test_metadata_changes_nothing(run):
    page = sites.article(run / "80_metadata.html")
    (picture,) = page.named("img")
    assert picture["alt"] == BREAKING_OUT and "open('executed', 'w')" in page.said
    assert not [*run.parent.rglob("executed")]


def test_what_a_text_may_hold_is_kept(run):
    page = sites.article(run / "00_kept.html")
    assert (
        "a < b & bold link costs 5 $ or 6 $" in page.said and "1 < 2" in page.said and "td {" not in page.said
    )
    assert 'style="font-weight:bold;">heavy</span>' in page.html.replace(": ", ":")
    assert {"code", "strong", "table", "thead", "span", "input"} <= {tag for tag, _ in page.elements}
    assert ("td", {"colspan": "2"}) in page.elements and ("table", {"class": "dataframe"}) in page.elements
    assert "before" not in page.said, "its own links to neighbours; the site has its own"
    assert "01_more.html" in [a.get("href") for a in page.named("a")]
    assert page.html.count("<thead>") == 1, (
        "a table without headings has none; its first column names the rows"
    )
    assert "row" in re.findall(r"<th[^>]*>\s*<p>(\w+)</p>", page.html)


def test_a_figure_keeps_its_description_and_links_to_its_file(run):
    page = sites.article(run / "00_kept.html")
    files = {a["alt"]: a["src"] for a in page.named("img") if "src" in a and a["src"].startswith("_images")}
    assert {*files} == {'a "white" square <1>', "mine", "too"}
    linked = re.findall(r'<a class="[^"]*image-reference[^"]*" href="([^"]*)"><img', page.html)
    assert {*files.values()} == {*linked}
    assert (run / files["mine"]).read_bytes() == base64.b64decode(PNG)
    (drawn,) = [a["src"] for a in page.named("img") if a.get("src", "").startswith("data:")]
    assert base64.b64decode(drawn.removeprefix("data:image/svg+xml;base64,")).decode() == SVG
    assert not [*run.rglob("*secret*")] and not [*run.rglob("*.svg")]


def test_formulas_are_mathml(run):
    html = sites.article(run / "00_kept.html").html
    assert re.search(r'<span class="math"><math[^>]*>\s*<mi>P</mi>\s*<mo>∈</mo>', html)
    assert re.search(r'<div class="math [^"]*"><math[^>]*display="block"[^>]*>.*<mfrac>', html, re.DOTALL)
    assert "\\mathbb" not in html


def test_stored_outputs_are_there_and_solutions_are_closed(run):
    page = sites.article(run / "00_kept.html")
    assert "wide wide" in page.said and "careful" in page.said
    hidden = " ".join("".join(word for word, is_inside in page.words if is_inside).split())
    assert "Hint Try two words. a list" in hidden and "the_solution()" in hidden and "found" in hidden
    assert "Show the solution" in hidden and "folded()" in hidden and "open" not in hidden
    assert not [a for a in page.named("details") if "open" in a]
    assert all(not is_inside for word, is_inside in page.words if "Before." in word or "After." in word)


def test_the_first_page_of_a_run_has_questions_times_status_and_results(run):
    page = sites.article(run / "index.html")
    rows = [
        re.findall(r"<td[^>]*>\s*<p>(.*?)</p>", row)
        for row in re.findall("<tr.*?</tr>", page.html, re.DOTALL)
    ]
    named = {re.sub("<.*?>", "", row[0]): row[1:] for row in rows if len(row) == 4}
    assert named["01 more"] == ["More|less?", "1:01", "ok"]
    assert named["02 failed"][2] == '<span class="failed">failed</span>'
    assert named["03 stopped"][2] == '<span class="failed">stopped</span>'
    assert named["04 later"][1:] == ["", "not run"] and named["together"][1] == "1:40"
    assert "What is &lt;a&gt; `prompt`?" in page.html and "processor" in page.said
    assert "E 0.5" in page.said and page.named("img")[0]["alt"] == 'a "white" square <1>'
    assert "no such prompt" in sites.article(run / "02_failed.html").said
    assert not (run / "04_later.html").exists() and not (run / "05_cut.html").exists()


def test_a_lesson_has_the_title_of_its_notebook_and_neighbours(run):
    page = sites.Page(run / "01_more.html")
    assert "<title>01. More|less?" in page.html
    rel = {a.get("rel"): a["href"] for a in page.named("link")}
    assert (rel["prev"], rel["next"]) == ("00_kept.html", "02_failed.html")
    assert "#part" in [a.get("href") for a in page.named("a")]


def test_a_second_build_replaces_the_first_and_leaves_no_trace(course):
    assert not [file for file in course[0].rglob("*") if ".unfinished" in file.name or file.suffix == ".map"]


def test_the_site_of_the_course_has_texts_and_reference(course):
    out = course[0]
    front = sites.article(out / "index.html")
    assert "Why 00_start_here?" in front.said and "notebooks/90_scoreboard.html" in [
        a.get("href") for a in front.named("a")
    ]
    api = sites.article(out / "api" / "iptkit.training.html")
    assert "iptkit.training.FitConfig" in api.ids and "iptkit.training.fit" in api.ids
    assert (
        "iptkit.training.trainer.trained_on" in sites.Page(out / "api" / "iptkit.training.trainer.html").ids
    )
    assert "Parameters" in api.said and "Raises" in api.said and "Warning" not in api.said
    index = (out / "searchindex.js").read_text(encoding="utf-8")
    assert '"How":[[' in index and "90. Why 90_scoreboard?" in index


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no checkout of iptkit"):
        site.write_course(tmp_path / "site", tmp_path)


SEEN = {
    "run": ("index.html", "00_kept.html", "02_failed.html", "search.html?q=solution"),
    "course": (
        "index.html",
        "notebooks/00_start_here.html",
        "api/iptkit.training.html",
        "map.html",
    ),
    "own": (
        "docs/results.html",
        "docs/prompts.html",
        "README.html",
        "map.html",
        *(f"notebooks/{lesson.name}.html" for lesson in lessons.find(paths.PACKAGE.parent / "notebooks")),
    ),
}
LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
PLACES = [(name, page) for name, pages in SEEN.items() for page in pages]


@pytest.fixture(scope="module")
def chromium():
    """A browser."""
    if CHROMIUM is None:
        pytest.skip(
            "no Chromium on PATH: what a browser makes of the pages is not tested (apt install chromium)"
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


class Visit:
    """A page in a browser window; notes what it asks for and complains about."""

    def __init__(self, chromium, width=1280, scheme="light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page, self.asked, self.errors = context.new_page(), [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("dialog", lambda dialog: (self.errors.append("a dialog"), dialog.dismiss()))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.page.context.close()

    def open(self, folder, name):
        self.page.goto(f"file://{folder}/{name}")

    @property
    def outside(self):
        return [url for url in self.asked if not url.startswith(("file:", "data:"))]


@pytest.mark.browser
@pytest.mark.parametrize(("name", "place"), PLACES)
def test_a_page_is_accessible_and_fits_on_a_phone(chromium, request, name, place):
    from axe_playwright_python.sync_playwright import Axe

    made = request.getfixturevalue(name)
    folder, found = made if name == "run" else made[0], {}
    for width, scheme in LOOKS[::3] if name == "own" else LOOKS:
        with Visit(chromium, width, scheme) as visit:
            visit.open(folder, place)
            options = {
                "resultTypes": ["violations"],
                "preload": False,
            }  # axe itself would load the styles again
            result = Axe().run(visit.page, options=options).response["violations"]
            bad = [(one["id"], one["nodes"][0]["html"][:300]) for one in result if one["impact"] != "minor"]
            size = visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert visit.page.evaluate("document.documentElement.dataset.theme") == scheme
            if bad or size[0] > size[1] or visit.outside or visit.errors:
                found[width, scheme] = (bad, size, visit.outside, visit.errors)
    assert not found


@pytest.mark.browser
def test_a_browser_runs_nothing_of_a_notebook(chromium, run):
    with Visit(chromium) as visit:
        for file in [*sorted(run.glob("[1-8]*.html")), run / "index.html"]:
            visit.open(run, file.name)
            visit.page.wait_for_load_state()
            assert visit.page.title() != "ran" and visit.page.url.endswith(file.name), file
        visit.open(run, "search.html?q=img")
        assert visit.page.locator("#search-results li a").first.inner_text() and visit.page.title() != "ran"
        assert visit.outside == [] and "a dialog" not in visit.errors


@pytest.mark.browser
def test_a_figure_opens_with_the_keyboard(chromium, run):
    with Visit(chromium) as visit:
        visit.open(run, "00_kept.html")
        visit.page.locator("a.image-reference").first.focus()
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_url(re.compile(r"_images/.*\.png$"))


@pytest.mark.browser
def test_the_search_finds_a_page_without_a_server(chromium, run):
    with Visit(chromium) as visit:
        visit.open(run, "search.html?q=subspace+prompt")
        visit.open(run, "search.html?q=the_solution")
        links = visit.page.locator("#search-results li a")
        links.first.wait_for()
        assert "00_kept.html" in links.first.get_attribute("href")


@pytest.mark.browser
def test_a_walk_on_the_map(chromium, course):
    with Visit(chromium) as visit:
        visit.open(course[0], "map.html")
        cells = visit.page.locator("#map-rows > tr")

        def shown():
            return [row.locator("th, td").all_inner_texts() for row in cells.all()]

        start = ["task-0", "<b>0", "0!", "0.00", "0.00", "</script>0?"]
        assert shown() == [start, ["task-1", "b", "1!", "1.00", "-2.00", "</script>1?"]]
        visit.page.locator("#map-way").press("ArrowRight")
        assert visit.page.locator("#map-place").inner_text() == "50 % of the way"
        assert [row[3] for row in shown()] == ["0.50", "0.50"]
        visit.page.locator("#map-first").select_option("task-1")  # the ends change places
        visit.page.locator("#map-way").press("End")
        assert shown()[1] == start and shown()[0][0] == "task-1"
        visit.page.locator("#map-picture > polygon").nth(1).click()  # the nearer end becomes task-2
        assert [row[0] for row in shown()] == ["task-1", "task-2"]
        assert "Scores are those of 48 test examples" in visit.page.inner_text("article")
        assert "62%" in visit.page.inner_text("article") and not visit.errors and not visit.outside
