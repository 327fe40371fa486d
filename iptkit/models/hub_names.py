"""Names of models that are not there: a mistyped one is refused at once, and the hub is asked once."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

ALIKE = 0.8  # similarity of two names by difflib, of 1


def check_spelling(name: str, known: Sequence[str]) -> None:
    """Check that a name is not almost that of a known model.

    Args:
      name: neither a known model nor a folder.
      known: names of the models that come with the kit.
    Raises: FileNotFoundError that names the known model. A name with a slash, or one of a model in the hub's
      cache, passes.
    """
    close = difflib.get_close_matches(name.lower(), known, 1, ALIKE)
    if close and "/" not in name and not _is_cached(name):
        raise FileNotFoundError(f"there is no model {name!r}; did you mean {close[0]}?")


def check_answers(name: str) -> None:
    """Check that the hub answers, unless the model is cached; transformers itself tries for 25 seconds.

    Args:
      name: a hub id. An answer of any kind passes, and so does a name that cannot be one.
    Raises: ConnectionError if there is no answer.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if _is_cached(name):
        return
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"))
    except (OSError, ValueError):  # it answers with an error, or the name is no id: transformers tells which
        return
    except Exception as error:  # of the hub's HTTP library, which differs between its versions
        raise ConnectionError(f"there is no answer: {error}") from error


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:  # no id of the hub
        return False
