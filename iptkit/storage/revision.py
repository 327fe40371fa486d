"""Names the code that a step runs through, so that a changed method never meets an old result.

The name is a digest of the module that makes the step and of every module of the kit that can be reached
from it by imports: those inside functions count, and those for annotations too, because an annotated argument
brings its module's code along. Comments, docstrings and formatting do not count.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from iptkit.storage import files, paths

MOST_KEPT = 2000
KEPT = "code.json"  # in the cache folder: what was found in each source text, as parsing all takes a second


def of(make: Callable[..., Any]) -> str:
    """Name the code that a function of the kit runs through.

    Args:
      make: a function, a method or a functools.partial. One from outside the kit counts as running through
        all of the kit; its own code is not looked at.
    Returns: 16 hex digits.
    """
    while isinstance(make, functools.partial):
        make = make.func
    module = getattr(make, "__module__", None) or type(make).__module__
    return _digest(paths.PACKAGE, module if module in _modules(paths.PACKAGE) else "")


def reached(module: str, package: Path | None = None) -> list[str]:
    """Names of the kit's modules that a module can reach by imports, itself included.

    Args:
      module: its full name; "" for all modules.
      package: folder of the kit's modules (default: that of this kit).
    """
    return sorted(_reached(module, package or paths.PACKAGE))


@functools.cache
def _digest(package: Path, module: str) -> str:
    """Once a process: what was imported is what runs, whatever becomes of its files."""
    found = _reached(module, package)
    text = json.dumps([[name, found[name]] for name in sorted(found)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reached(module: str, package: Path) -> dict[str, str]:
    """Digests of modules by name."""
    there, known, found = _modules(package), _kept(), {}
    own = Path(__file__).read_bytes()  # what an older version of this module found may be other digests
    used, new = set(), False
    left = [module] if module else list(there)
    while left:
        name = left.pop()
        if name not in there or name in found:
            continue
        source = there[name].read_bytes()
        key = f"{hashlib.sha256(own + source).hexdigest()} {sys.version_info[0]}.{sys.version_info[1]}"
        if key not in known:
            tree, new = ast.parse(source), True
            known[key] = {"imports": sorted(set(_imports(tree))), "digest": _plain(tree)}
        found[name] = known[key]["digest"]
        used.add(key)
        left += [*known[key]["imports"], name.rpartition(".")[0]]
    if new:
        if len(known) > MOST_KEPT:  # of years of changes
            known = {key: about for key, about in known.items() if key in used}
        with contextlib.suppress(OSError):  # no room or no right to write: the next process parses again
            files.write_json(paths.cache_dir() / KEPT, known)
    return found


@functools.cache
def _modules(package: Path) -> dict[str, Path]:
    """Files of all modules of the kit by their full names."""
    found = {}
    for file in package.rglob("[!.]*.py"):
        parts = [package.name, *file.relative_to(package).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def _imports(tree: ast.AST) -> Iterator[str]:
    """Full names that may be modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno}: a relative import; name the module in full")
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"  # the package imports a module when it is named so


def _plain(tree: ast.AST) -> str:
    """Digest of a module without comments, docstrings and formatting."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
    return hashlib.sha256(json.dumps(_lists(tree)).encode()).hexdigest()[:16]


def _lists(node: Any) -> Any:
    """A tree as lists, the same in every version of Python: what is empty is left out.

    New versions add fields that are empty in older code (`type_params` in 3.12).
    """
    if isinstance(node, ast.AST):
        given = [(name, getattr(node, name, None)) for name in sorted(node._fields)]
        return [type(node).__name__, *([name, _lists(v)] for name, v in given if v is not None and v != [])]
    return [_lists(part) for part in node] if isinstance(node, list) else repr(node)


def _kept() -> dict[str, Any]:
    try:
        known = files.read_json(paths.cache_dir() / KEPT)
    except (OSError, ValueError):
        return {}
    entries = known.items()
    return {
        key: about for key, about in entries if isinstance(about, dict) and {*about} == {"imports", "digest"}
    }
