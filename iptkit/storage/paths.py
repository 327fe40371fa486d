"""The folders of the kit: its own data, downloads, finished steps, results.

Three environment variables move them: IPTKIT_CACHE (downloads, models, tasks), IPTKIT_STEPS (finished steps;
default: `steps` inside the cache) and IPTKIT_RESULTS (verdicts on claims; default: `results` inside the
cache; `iptkit run` sets it to the folder of the run). IPTKIT_CROSSFIT names a folder of your own files for
the suite `crossfit`. The functions create the folders that they return, except `data_dir` and `crossfit_dir`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

PACKAGE = Path(__file__).resolve().parent.parent  # iptkit/


def data_dir() -> Path:
    """Return the folder of the kit's own files (cards, splits, tiny tasks).

    Returns: `data/` beside the package in a checkout, else `data/` inside the installed package.
    Raises: FileNotFoundError if neither exists (a broken installation).
    """
    for folder in (PACKAGE.parent / "data", PACKAGE / "data"):
        if (folder / "cards").is_dir():
            return folder
    raise FileNotFoundError(
        f"iptkit's own data folder is missing (looked for data/cards in {PACKAGE.parent} and {PACKAGE}); "
        "install iptkit again, or run it from a complete checkout"
    )


def cache_dir() -> Path:
    """Return the cache folder: $IPTKIT_CACHE, else the user's cache folder of this system."""
    return _folder(os.environ.get("IPTKIT_CACHE") or platformdirs.user_cache_path("iptkit"), "IPTKIT_CACHE")


def downloads_dir() -> Path:
    """Return the folder of downloaded archives: `downloads` in the cache."""
    return _folder(cache_dir() / "downloads", "IPTKIT_CACHE")


def models_dir() -> Path:
    """Return the folder of converted models: `models` in the cache."""
    return _folder(cache_dir() / "models", "IPTKIT_CACHE")


def tasks_dir() -> Path:
    """Return the folder of built task pools: `tasks` in the cache."""
    return _folder(cache_dir() / "tasks", "IPTKIT_CACHE")


def steps_dir() -> Path:
    """Return the folder of finished steps: $IPTKIT_STEPS, else `steps` in the cache."""
    return _folder(os.environ.get("IPTKIT_STEPS") or cache_dir() / "steps", "IPTKIT_STEPS")


def results_dir() -> Path:
    """Return the folder where lessons write their verdicts: $IPTKIT_RESULTS, else `results` in the cache."""
    return _folder(os.environ.get("IPTKIT_RESULTS") or cache_dir() / "results", "IPTKIT_RESULTS")


def crossfit_dir() -> Path | None:
    """Return $IPTKIT_CROSSFIT, the folder of your own files for the suite `crossfit`; None if it is unset.

    Raises: FileNotFoundError if it does not exist.
    """
    given = os.environ.get("IPTKIT_CROSSFIT")
    folder = expanded(given).absolute() if given else None
    if folder is not None and not os.path.isdir(folder):
        raise FileNotFoundError(
            f"IPTKIT_CROSSFIT names the folder {folder}, which is not there; create it or unset the variable"
        )
    return folder


@contextmanager
def variables(**values: str) -> Iterator[None]:
    """Set environment variables inside this context and restore them at its end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def expanded(path: str | Path) -> Path:
    """The path with a leading `~` replaced by the home folder, where that is known."""
    return Path(os.path.expanduser(path))


def _folder(path: str | Path, variable: str) -> Path:
    folder = expanded(path).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise ValueError(_refusal(folder, variable, error.strerror or type(error).__name__)) from error
    if not is_writable:
        raise ValueError(_refusal(folder, variable, "no permission to write"))
    return folder


def _refusal(folder: Path, variable: str, reason: str) -> str:
    return (
        f"cannot write to the folder {folder} ({reason}); set the environment variable {variable} to a "
        f"folder that you can write to, for example: export {variable}=$HOME/iptkit-files"
    )
