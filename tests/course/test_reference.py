"""Docstrings as reStructuredText, and which names the reference has."""

import ast

import iptkit
from iptkit.course import reference
from iptkit.storage import paths

DOCSTRING = """What it gets: a_ * b.

    code  as it is *

Args:
  text: a `name_` of
    two lines.
  *more: others.
Returns: [N], one of
these.
Raises: ValueError: no.

>>> 1 * 1
1"""
RST = r"""What it gets: a\_ \* b.

::

        code  as it is *


:Parameters:

   * **text**: a `name_` of
     two lines.

   * **\*more**: others.

:Returns:
   [N], one of
   these.

:Raises:
   ValueError: no.

>>> 1 * 1
1
"""


def lines(text):
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_a_docstring_becomes_restructuredtext():
    assert lines("\n".join(reference.as_rst(DOCSTRING.split("\n")))) == lines(RST)


def test_every_public_name_is_in_the_reference(tmp_path):
    reference.write(tmp_path)
    text = "\n".join(file.read_text(encoding="utf-8") for file in tmp_path.glob("*.rst"))
    for stub in paths.PACKAGE.rglob("__init__.pyi"):
        package = ".".join(stub.parent.relative_to(paths.PACKAGE.parent).parts)
        for node in ast.parse(stub.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    name = f"{package}.{alias.name}"
                    is_command = reference.COMMANDS.fullmatch(alias.name)
                    assert is_command or name in text or package == "iptkit", name
    assert all(f"`iptkit.{name} <" in text for name in iptkit.__all__ if name[0].isupper())
