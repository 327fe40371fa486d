"""The pages of the API reference: the public names of each package, as its `__init__.pyi` lists them.

Sphinx reads the docstrings, which are plain text with names in backticks, sections in Google style (`Args:`)
and indented blocks that are shown as they are. `as_rst` turns them into its own markup.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from iptkit.storage import paths

SECTIONS = {name: name for name in ("Attributes", "Returns", "Yields", "Raises", "Warns")} | {
    "Args": "Parameters"
}
SECTION = re.compile(f"({'|'.join(SECTIONS)}):( |$)")
ITEM = re.compile(r"([^:`]+): (.*)")
MARKUP = re.compile(r"[*|\\]|_(?!\w)")
COMMANDS = re.compile("cli|.*_commands")  # modules of the command line, which `iptkit --help` describes


def write(folder: Path) -> list[str]:
    """Write the pages as reStructuredText.

    Args:
      folder: where they go; it exists.
    Returns: the names of the packages' pages, without their ending.
    """
    top = _imports(paths.PACKAGE)
    names = [
        f"* :py:obj:`iptkit.{name} <iptkit.{origin.partition('.')[0]}.{name}>`"
        for name, origin in top.items()
        if origin
    ]
    _page(folder, "iptkit", ".. automodule:: iptkit", ".. currentmodule:: iptkit", "\n".join(names))
    for package in packages():
        _package(folder, package)
    return ["iptkit", *(f"iptkit.{package}" for package in packages())]


def packages() -> list[str]:
    """The packages of iptkit."""
    return [name for name, origin in _imports(paths.PACKAGE).items() if not origin]


def _package(folder: Path, package: str) -> None:
    """The page of a package, and one of each of its modules."""
    place, full = paths.PACKAGE / package.replace(".", "/"), f"iptkit.{package}"
    public = _imports(place)
    modules = [name for name, origin in public.items() if not origin and not COMMANDS.fullmatch(name)]
    if not public:  # a package without names of its own
        modules = sorted(file.stem for file in place.glob("[!_]*.py"))
    by_module: dict[str, list[str]] = {}
    for name, origin in public.items():
        if origin:
            by_module.setdefault(origin, []).append(name)
    names = [
        _described(f"{full}.{name}", place / f"{origin}.py") for name, origin in public.items() if origin
    ]
    files = {name: place / f"{name}.py" for name in modules}
    links = [
        f"   * - :doc:`{name} <{full}.{name}>`\n     - {escaped(_about(file))}"
        for name, file in files.items()
        if file.is_file()
    ]
    table = ".. list-table::\n   :header-rows: 1\n\n   * - Module\n     - Content\n" + "\n".join(links)
    toctree = ".. toctree::\n   :hidden:\n\n" + "\n".join(f"   {name} <{full}.{name}>" for name in modules)
    _page(folder, full, f".. automodule:: {full}", *names, "Modules\n-------", table, toctree)
    for name, file in files.items():
        if not file.is_file():
            _package(folder, f"{package}.{name}")
            continue
        shown_above = ", ".join(by_module.get(name, []))
        options = "   :members:\n" + (f"   :exclude-members: {shown_above}\n" if shown_above else "")
        note = [f"See also on the page of :doc:`{full}`: {shown_above}."] if shown_above else []
        _page(folder, f"{full}.{name}", f".. automodule:: {full}.{name}\n{options}", *note)


def _page(folder: Path, title: str, *parts: str) -> None:
    text = "\n\n".join([f"{title}\n{'=' * len(title)}", *parts, ""])
    (folder / f"{title}.rst").write_text(text, encoding="utf-8")


def _described(name: str, file: Path) -> str:
    """The directive that shows a class, a function or a value."""
    last = name.rpartition(".")[2]
    for node in _tree(file).body:
        if isinstance(node, ast.FunctionDef) and node.name == last:
            return f".. autofunction:: {name}"
        if isinstance(node, ast.ClassDef) and node.name == last:
            bases = "\n   :show-inheritance:" if node.bases else ""
            return f".. autoclass:: {name}\n   :members:{bases}"
    return f".. autodata:: {name}"


def _imports(place: Path) -> dict[str, str]:
    """The public names of a package, each with the module that defines it ("" if it is a module itself)."""
    file = place / "__init__.pyi"
    if not file.is_file():
        return {}
    found: dict[str, str] = {}
    for node in _tree(file).body:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name: node.module or "" for alias in node.names}
    return found


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _about(file: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    words = (ast.get_docstring(_tree(file)) or "").partition("\n\n")[0]
    return re.split(r"(?<=\.)\s", " ".join(words.split()))[0]


def escaped(text: str) -> str:
    r"""Text in which nothing but names in backticks is markup.

    >>> print(escaped("p* of `a_` and b_"))
    p\* of `a_` and b\_
    """
    parts = text.split("`")
    return "`".join(part if i % 2 else MARKUP.sub(r"\\\g<0>", part) for i, part in enumerate(parts))


def as_rst(lines: Sequence[str]) -> Iterator[str]:
    """The lines of a docstring as Sphinx reads them.

    Args:
      lines: the docstring, without common indentation.
    """
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        rows = paragraph.split("\n")
        if rows[0].startswith(" "):
            yield from ("::", "", *(f"    {row}" for row in rows))
        elif rows[0].startswith(">>>"):
            yield from rows
        else:
            rows = escaped(paragraph).split("\n")
            starts = [number for number, row in enumerate(rows) if SECTION.match(row)]
            yield from rows[: min(starts, default=len(rows))]
            for start, end in itertools.pairwise([*starts, len(rows)]):
                yield ""
                yield from _section(rows[start:end])
        yield ""


def _section(rows: Sequence[str]) -> Iterator[str]:
    """A section of a docstring as a field: its text, and a list of its indented items."""
    name, _, first = rows[0].partition(":")
    yield f":{SECTIONS[name]}:"
    for row in (first, *rows[1:]):
        depth, text = len(row) - len(row.lstrip()), row.strip()
        item = ITEM.match(text)
        if row is not first and depth == 2:
            yield ""
            yield f"   * **{item[1]}**: {item[2]}" if item else f"   * {text}"
        else:
            yield f"     {text}" if depth > 2 else f"   {text}"
