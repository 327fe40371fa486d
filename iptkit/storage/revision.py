"""Digests of the code that a step runs, so that a changed method never gets an old result.

A digest covers the module that makes the step and every module of the kit that it reaches by imports, those
inside functions and for annotations included (an annotated argument brings the code of its module along).
Comments, docstrings and formatting do not count.
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

from iptkit.storage import files, paths, reading

MOST_KEPT = 2000
KEPT = "code.json"  # in the cache folder: what parsing found in each source text; parsing all takes a second


def of(make: Callable[..., Any]) -> str:
    """A digest of the code that a function of the kit runs.

    Args:
      make: a function, a method or a functools.partial. For one from outside the kit the digest covers the
        whole kit, but not the function's own code.
    Returns: 16 hex digits.
    """
    while isinstance(make, functools.partial):
        make = make.func
    module = getattr(make, "__module__", None) or type(make).__module__
    return _digest(paths.PACKAGE, module if module in _modules(paths.PACKAGE) else "")


def reached(module: str, package: Path | None = None) -> list[str]:
    """Names of the modules of the kit that a module reaches by imports, itself included.

    Args:
      module: its full name; "" for all modules.
      package: folder of the modules (default: this kit).
    """
    return sorted(_reached(module, package or paths.PACKAGE))


@functools.cache
def _digest(package: Path, module: str) -> str:
    """Computed once per process: what was imported is what runs, even if files change later."""
    found = _reached(module, package)
    text = json.dumps([[name, found[name]] for name in sorted(found)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reached(module: str, package: Path) -> dict[str, str]:
    """Digests of the modules that a module reaches, by name."""
    there, known, found = _modules(package), _kept(), {}
    own = Path(__file__).read_bytes()  # another version of this module may compute other digests
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
        if len(known) > MOST_KEPT:  # after years of changes
            known = {key: about for key, about in known.items() if key in used}
        with contextlib.suppress(OSError):  # no room or no permission: the next process parses again
            files.write_json(paths.cache_dir() / KEPT, known)
    return found


@functools.cache
def _modules(package: Path) -> dict[str, Path]:
    """The files of all modules of the kit, by full name."""
    found = {}
    for file in package.rglob("[!.]*.py"):
        parts = [package.name, *file.relative_to(package).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def _imports(tree: ast.AST) -> Iterator[str]:
    """Full names in a module that may be modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno}: a relative import; name the module in full")
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"  # imports a module by its name in the package


def _plain(tree: ast.AST) -> str:
    """The digest of a module without its comments, docstrings and formatting."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
    return hashlib.sha256(json.dumps(_lists(tree)).encode()).hexdigest()[:16]


def _lists(node: Any) -> Any:
    """A syntax tree as lists that are the same in every version of Python.

    Empty fields are left out, because new versions add fields that older code leaves empty (`type_params`).
    """
    if isinstance(node, ast.AST):
        given = [(name, getattr(node, name, None)) for name in sorted(node._fields)]
        return [type(node).__name__, *([name, _lists(v)] for name, v in given if v is not None and v != [])]
    return [_lists(part) for part in node] if isinstance(node, list) else repr(node)


def _kept() -> dict[str, Any]:
    try:
        known = reading.read_json(paths.cache_dir() / KEPT)
    except (OSError, ValueError):
        return {}
    entries = known.items()
    return {
        key: about for key, about in entries if isinstance(about, dict) and {*about} == {"imports", "digest"}
    }
