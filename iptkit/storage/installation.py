"""What the kit is installed with, and sentences about what of that is missing or broken.

Imports nothing but the standard library, so that it can speak when everything else is missing.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent.parent  # the checkout, where there is one


def command(*extras: str) -> str:
    """Return the command that installs the kit with these extras: of its checkout, else what is installed."""
    named = f"[{','.join(extras)}]" if extras else ""
    if _is_checkout():
        return f"python -m pip install -c constraints.txt -e '.{named}'"
    return f"python -m pip install 'iptkit{named}'"


def of_course() -> list[str]:
    """Return the extras that the course is worked with: in a checkout also those of its tests."""
    return ["notebooks", "dev"] if _is_checkout() else ["notebooks"]


def problem(error: ImportError | AttributeError) -> str | None:
    """Return what an error says about the installation, in a sentence; None if it is about something else."""
    if isinstance(error, AttributeError):  # an emptied package is still imported
        owner = error.obj.__name__ if isinstance(error.obj, ModuleType) else "iptkit"
        package = owner.partition(".")[0]
    else:
        package = (error.name or "").partition(".")[0]
    if package == "iptkit":
        return None
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        extras = ["cluster"] if package == "ray" else of_course()
        return f"the package {package} is not installed; install all of them with: {command(*extras)}"
    name = importlib.metadata.packages_distributions().get(package, [package])[0]  # sklearn: scikit-learn
    pins = "-c constraints.txt " if _is_checkout() else ""
    return (
        f"the package {name or 'that it needs'} is installed but broken or of another version ({error}); "
        f"install it again with: python -m pip install {pins}--force-reinstall --no-deps {name or 'NAME'}"
    )


def _is_checkout() -> bool:
    return (ROOT / "pyproject.toml").is_file()
