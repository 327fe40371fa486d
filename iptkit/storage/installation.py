"""Advice about the installation: which packages are missing or broken, and the command that installs them.

It imports nothing but the standard library, so that it works when everything else is missing.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent.parent  # the checkout, where there is one


def command(*extras: str) -> str:
    """The pip command that installs the kit with these extras, from its checkout if there is one."""
    named = f"[{','.join(extras)}]" if extras else ""
    if _is_checkout():
        return f'python -m pip install -c constraints.txt -e ".{named}"'  # double quotes: also on Windows
    return f'python -m pip install "iptkit{named}"'


def of_course() -> list[str]:
    """The extras that the course needs; in a checkout also those of its tests."""
    return ["notebooks", "dev"] if _is_checkout() else ["notebooks"]


def problem(error: ImportError | AttributeError) -> str | None:
    """A sentence on what is wrong with the installation, or None if the error has another cause."""
    if isinstance(error, AttributeError):  # a package whose files were deleted can still be imported
        owner = error.obj.__name__ if isinstance(error.obj, ModuleType) else "iptkit"
        package = owner.partition(".")[0]
    else:
        package = (error.name or "").partition(".")[0]
    if package == "iptkit":
        return None
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        extras = ["cluster"] if package == "ray" else of_course()
        return f"the package {package} is not installed; install all packages with: {command(*extras)}"
    name = importlib.metadata.packages_distributions().get(package, [package])[0]  # sklearn: scikit-learn
    pins = "-c constraints.txt " if _is_checkout() else ""
    return (
        f"the package {name or 'that it needs'} is installed but broken, or has another version ({error}); "
        f"install it again with: python -m pip install {pins}--force-reinstall --no-deps {name or 'NAME'}"
    )


def _is_checkout() -> bool:
    return (ROOT / "pyproject.toml").is_file() and (ROOT / "constraints.txt").is_file()
