"""The pages of a run, from notebooks with unknown content."""

import base64
import re
from html.parser import HTMLParser

import nbformat
import pytest
import toy_notebooks as toy
from nbformat.v4 import new_output

from iptkit.course import lessons, report

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and more").decode()
FORBIDDEN = {"script", "iframe", "object", "embed", "link", "base", "form", "svg", "math", "textarea"}


class Seen(HTMLParser):
    """All elements of a page in order, as a browser's parser meets them, with the depth of <details>."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.words, self.inside = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside += ["details"] if tag == "details" else []

    def handle_endtag(self, tag):
        if tag == "details":
            self.inside.pop()

    def handle_data(self, data):
        self.words.append((data, bool(self.inside)))


def page_of(tmp_path, *cells):
    """The page of a notebook of these cells."""
    source = toy.write(tmp_path / "notebooks" / "00_own.ipynb", "# 00. Mine?", *cells)
    executed = tmp_path / "out" / source.name
    executed.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.read(source, as_version=4), executed)
    return report.page(lessons.Lesson(source), executed).read_text(encoding="utf-8")


def index_of(tmp_path, *outputs):
    """The index page of a run with one notebook, whose summary has these outputs."""
    source = toy.write(
        tmp_path / "out" / "00_own.ipynb", "# 00. Mine?", toy.code("1", "summary", outputs=[*outputs])
    )
    one = lessons.Lesson(source)
    return report.index(tmp_path / "out", "t", [one], {}, {"00_own": "ok"}, [], ("all", 1.0)).read_text()


def shown(mime, data, **metadata):
    """An output of a cell."""
    return new_output("display_data", data={mime: data}, metadata={mime: metadata} if metadata else {})


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
    "end of the page": "</main></body></html><script>1</script>",
}


MIMES = ("text/html", "text/markdown", "text/latex", "text/vnd.mermaid", "image/svg+xml")


def check(html):
    """Nothing on a page runs or loads anything, because of its policy and because its tags are cleaned."""
    head, _, body = html.partition("<body>")
    assert "<script" not in head and body.count("</main>") == 1 and body.count("</body>") == 1
    assert re.search("Content-Security-Policy\" content=\"default-src 'none'; img-src data:;", head)
    assert head.index("Content-Security-Policy") < head.index("<style>")
    for tag, attributes in Seen(body).elements:
        assert tag not in FORBIDDEN, tag
        assert not [name for name in attributes if name.startswith("on") or name in ("srcset", "srcdoc")]
        assert attributes.get("src", "data:image/png").startswith("data:image/")
        assert re.match(r"(?!\s*(java|data))", attributes.get("href", ""), re.IGNORECASE)
        assert "url" not in attributes.get("style", "") and "position" not in attributes.get("style", "")


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_nothing_that_a_notebook_holds_runs_or_reaches_out(tmp_path, attack):
    outputs = [shown(mime, attack) for mime in MIMES]
    outputs.append(shown("text/html", attack, isolated=True))
    outputs.append(shown("application/javascript", "document.title = 'ran'"))
    outputs.append(toy.printed(attack))
    cells = [toy.text(attack), toy.code("1", outputs=outputs)]
    html = page_of(tmp_path, *cells, toy.text("the end"))
    check(html)
    assert "the end" in html
    check(index_of(tmp_path, *outputs))


BREAKING_OUT = '"><script>1</script><img src="x" onerror="alert(1)'


def test_the_text_of_a_figure_cannot_leave_its_attribute(tmp_path):
    bad = [
        shown("image/png", PNG + BREAKING_OUT),
        shown("image/jpeg", PNG + BREAKING_OUT),
        shown("image/png", PNG, alt=BREAKING_OUT, width="1 onload=alert(1)", height="2 onclick=alert(1)"),
    ]
    for html in (page_of(tmp_path, toy.code("1", outputs=bad)), index_of(tmp_path, *bad)):
        check(html)
        pictures = [attributes for tag, attributes in Seen(html).elements if tag == "img"]
        good = [attributes for attributes in pictures if "src" in attributes]
        assert [one["src"] for one in good] == [f"data:image/png;base64,{PNG}"]
        assert good[0]["alt"] == BREAKING_OUT


def test_what_a_text_may_hold_is_kept(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "own.png").write_bytes(base64.b64decode(PNG))
    words = (
        "`a < b` & $x_1 < y$ **bold** [link](05_x.html)\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n- [x] done\n\n"
    )
    words += "![gone](attachment:gone.png)\n\n"
    words += "![mine](own.png) <img src='own.png' alt='too' width='20'> <span style='color:red'>red</span>"
    table = (
        "<style scoped>td {color: red}</style><table class='dataframe'><tr><td colspan=2>7</td></tr></table>"
    )
    html = page_of(tmp_path, toy.text(words), toy.code("1 < 2", outputs=[shown("text/html", table)]))
    seen = Seen(html.partition("<body>")[2])
    said = "".join(word for word, _ in seen.words)
    assert "a < b & $x_1 < y$ bold link" in said and "1 < 2" in said and "td {" not in said
    assert '<span style="color:red;">red</span>' in html.replace("color: red", "color:red")
    tags = {tag for tag, _ in seen.elements}
    assert {"code", "strong", "table", "thead", "td", "span", "input", "img"} <= tags
    pictures = [attributes for tag, attributes in seen.elements if tag == "img" and "src" in attributes]
    assert [(one["alt"], one["src"]) for one in pictures] == [
        (alt, f"data:image/png;base64,{PNG}") for alt in ("mine", "too")
    ]
    assert ("td", {"colspan": "2"}) in seen.elements and ("table", {"class": "dataframe"}) in seen.elements
    assert ("td", {"style": "text-align:right;"}) in seen.elements
    assert ("a", {"href": "05_x.html"}) in seen.elements


def test_a_figure_of_lines_is_a_picture(tmp_path):
    drawn = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><path d='M0 0L9 9'/></svg>"
    html = page_of(tmp_path, toy.code("1", outputs=[shown("image/svg+xml", drawn)]))
    (picture,) = [attributes for tag, attributes in Seen(html).elements if tag == "img"]
    assert base64.b64decode(picture["src"].removeprefix("data:image/svg+xml;base64,")).decode() == drawn
    check(html)


def test_hints_are_closed_and_hold_what_they_hide(tmp_path):
    hint = (
        "Before.\n\n<details><summary>Hint</summary>\n\nTry *two* words.\n\n- a list\n\n</details>\n\nAfter."
    )
    html = page_of(tmp_path, toy.text(hint))
    seen = Seen(html)
    assert ("details", {}) in seen.elements, "closed: it has no attribute open"
    hidden = "".join(word for word, is_inside in seen.words if is_inside)
    assert re.sub(r"\s+", " ", hidden).strip() == "Hint Try two words. a list"
    assert all(not is_inside for word, is_inside in seen.words if "Before" in word or "After" in word)


def test_every_link_of_a_run_of_some_notebooks_leads_somewhere(tmp_path):
    names = ("00_a", "01_b", "02_c", "03_d")
    course = [lessons.Lesson(toy.write(tmp_path / "in" / f"{n}.ipynb", f"# {n[:2]}. {n}?")) for n in names]
    out, status = tmp_path / "out", {"00_a": "ok"}  # 00: of an earlier run, whose page was removed
    out.mkdir()
    toy.write(out / "00_a.ipynb", "# 00. a?", toy.code("1", "summary", outputs=[toy.printed("E 1")]))

    def run(lesson):
        nbformat.write(nbformat.read(lesson.path, as_version=4), out / lesson.path.name)
        status[lesson.name] = "ok"
        report.write(lesson, course, "smoke", out, dict.fromkeys(status, 1.0), status, 1, 1.0)
        for file in out.glob("*.html"):
            links = [a["href"] for tag, a in Seen(file.read_text("utf-8")).elements if tag == "a"]
            assert [link for link in links if not (out / link).is_file()] == [], file
            yield file.stem, set(links)

    assert dict(run(course[2])) == {"index": {"02_c.html"}, "02_c": {"index.html"}}
    both = {"02_c": {"index.html", "03_d.html"}, "03_d": {"index.html", "02_c.html"}}
    assert dict(run(course[3])) == {"index": {"02_c.html", "03_d.html"}, **both}, (
        "the first page links it now"
    )


@pytest.mark.parametrize(
    "text", ['{"cells": [', "[]", "{}", '{"nbformat": 4, "nbformat_minor": 5, "cells": 3}']
)
def test_a_notebook_that_was_cut_off_has_no_summary_on_the_index_page(tmp_path, text):
    assert "E 1" in index_of(tmp_path, toy.printed("E 1"))
    one = lessons.Lesson(toy.write(tmp_path / "in" / "00_own.ipynb", "# 00. Mine?"))
    (tmp_path / "out" / "00_own.ipynb").write_text(text, encoding="utf-8")
    page = report.index(tmp_path / "out", "t", [one], {}, {"00_own": "ok"}, [], ("all", 1.0))
    assert "Mine?" in page.read_text() and "E 1" not in page.read_text()
