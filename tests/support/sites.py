"""Reads the pages of a site: what they hold, and whether their links lead somewhere."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """A page, as a browser's parser meets it.

    Attributes:
      html: its text.
      elements: tag and attributes of all elements, in order.
      words: pieces of text, each with whether it is inside <details>.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.html = file.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict]] = []
        self.words: list[tuple[str, bool]] = []
        self._inside: list[str] = []
        self.feed(self.html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside += ["details"] if tag == "details" else []

    def handle_endtag(self, tag):
        if tag == "details":
            self._inside.pop()

    def handle_data(self, data):
        self.words.append((data, bool(self._inside)))

    @property
    def said(self) -> str:
        """All text, with single blanks."""
        return " ".join("".join(word for word, _ in self.words).split())

    @property
    def ids(self) -> set[str]:
        """What a link can point to."""
        return {attributes["id"] for _, attributes in self.elements if attributes.get("id")}

    def named(self, tag: str) -> list[dict]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def article(file: Path) -> Page:
    """What a page itself says, without the theme around it."""
    page = Page(file)
    page.html = page.html.partition('<article class="bd-article">')[2].partition("</article>")[0]
    page.elements, page.words = [], []
    page.rawdata = ""
    page.feed(page.html)
    return page


def loaded(page: Page) -> set[str]:
    """Addresses of what a page loads by itself."""
    links = [a["href"] for a in page.named("link") if a.get("rel") not in ("next", "prev", "search")]
    sources = [a[name] for _, a in page.elements for name in ("src", "srcset", "data", "poster") if name in a]
    return {*links, *sources}


def dead_links(folder: Path) -> list[str]:
    """Links and pictures of all pages that lead to no file of the folder, or to no place in its page."""
    pages = {file.resolve(): Page(file) for file in folder.rglob("*.html")}
    dead = []
    for file, page in pages.items():
        for _, attributes in page.elements:
            link = attributes.get("href") or attributes.get("src") or "#"
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            place = unquote(parts.fragment)
            is_there = target.is_file() and (not place or target not in pages or place in pages[target].ids)
            if not is_there:
                dead.append(f"{file.name}: {link}")
    return dead
