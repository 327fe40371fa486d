"""The README's table of modules is the direction in which modules may import each other."""

import ast
import re

from iptkit.storage import paths

PACKAGE = paths.data_dir().parent / "iptkit"
README = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")


def rows_of_the_table():
    table = README.split("| module | holds |")[1].split("\n\n")[0]
    return [re.findall(r"`([a-z0-9_]+)/?`", line.split("|")[1]) for line in table.splitlines()[2:]]


def imports_of(path):
    """Modules of the package that a file imports when it is loaded (not those inside functions)."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module == "iptkit":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("iptkit."):
            found.add(node.module.split(".")[1])
    return found


def test_every_module_stands_in_the_table_once():
    named = [name for row in rows_of_the_table() for name in row]
    there = {p.stem for p in PACKAGE.glob("*.py") if not p.stem.startswith("__")} | {"sources"}
    assert sorted(named) == sorted(there)


def test_modules_import_from_their_own_row_and_the_rows_above():
    row_of = {name: i for i, row in enumerate(rows_of_the_table()) for name in row}
    wrong = [
        (name, other)
        for name in row_of
        for file in ([PACKAGE / f"{name}.py"] if name != "sources" else (PACKAGE / "sources").glob("*.py"))
        for other in imports_of(file)
        if other in row_of and row_of[other] > row_of[name]
    ]
    assert wrong == []
