"""Sentences for wrong calls: a model in place of an engine, texts in place of rows, runs that do not fit."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from iptkit.engine.prompt import Prompt, PromptSource
from iptkit.models.backbone import Backbone

LARGEST_SEED = 2**63 - 1


def check_backbone(given: Any, name: str) -> None:
    """Raise ValueError unless a function or a class was given a backbone.

    Args:
      given: what it was given.
      name: its name.
    """
    if isinstance(given, Backbone):
        return
    if isinstance(given, (str, Path)):
        told = f"got the name {str(given)!r}; load the model: {name}(models.load({str(given)!r}))"
    elif isinstance(getattr(given, "backbone", None), Backbone):
        told = f"got a {type(given).__name__}; give its model: {name}(engine.backbone)"
    else:
        told = f"got a {type(given).__name__}; give what models.load returns, from a name or a folder"
    raise ValueError(f"{name} needs a backbone, but {told}")


def check_engine(given: Any, or_model: bool = False) -> None:
    """Raise ValueError unless a function was given an engine.

    Args:
      given: what it was given.
      or_model: whether a model (a `Backbone`) is allowed, too.
    """
    is_engine = hasattr(given, "log_likelihoods") and not isinstance(given, type)
    if is_engine or (or_model and isinstance(given, Backbone)):
        return
    wanted = "an engine or a model" if or_model else "an engine"
    if isinstance(given, Backbone):
        told, way = f"the model {given.name}", "Engine(model), or HeadEngine(model) for an encoder"
    elif isinstance(given, (str, Path)):
        told, way = f"the name {str(given)!r}", f"Engine(models.load({str(given)!r}))"
    else:
        told, way = f"a {type(given).__name__}", "Engine(models.load(NAME))"
    raise ValueError(f"{told} was given in place of {wanted}; give {way}")


def check_modules(engine: Any, source: Any) -> PromptSource:
    """The source, after a check that both are what their names say.

    Args:
      engine: should be an engine.
      source: should be a prompt source.
    Raises: ValueError that says what was given, and what to give.
    """
    check_engine(engine)
    if not isinstance(source, PromptSource):
        ways = {Tensor: "wrap it: methods.SoftPrompt(tensor)", Prompt: "give the source that made it"}
        way = next((way for kind, way in ways.items() if isinstance(source, kind)), "see engine.PromptSource")
        raise ValueError(f"a {type(source).__name__} was given in place of a source of prompts; {way}")
    return source


def check_rows(prompt: Any, rows: Any, kind: type) -> None:
    """Raise ValueError unless an engine was given a Prompt and its own rows, one prompt per row.

    Args:
      prompt: should be a Prompt.
      rows: should be a list of rows; only the first one is looked at, as this runs in every step.
      kind: the class of the engine's rows.
    """
    make = "make rows with engine.target_row(example) or engine.option_row(example)"
    if not isinstance(prompt, Prompt):
        way = "source(runs), with one run per row" if isinstance(prompt, nn.Module) else "Prompt(embeds)"
        raise ValueError(f"a {type(prompt).__name__} was given in place of a Prompt; give {way}")
    if isinstance(rows, (str, kind)):
        raise ValueError(f"a single {type(rows).__name__} was given in place of a list of rows; {make}")
    if not len(rows):
        raise ValueError(f"no rows were given; {make}")
    if not isinstance(rows[0], kind):
        other = "; engine.generate continues texts" if isinstance(rows[0], str) else ""
        raise ValueError(f"a {type(rows[0]).__name__} was given in place of a row; {make}{other}")
    if prompt.count not in (0, len(rows)):
        raise ValueError(
            f"{prompt.count} prompts were given for {len(rows)} rows; give one per row: source(runs), with "
            "the run of each row"
        )


def check_list(given: Any, kind: type, function: str, name: str) -> None:
    """Raise ValueError unless a function was given a list (or tuple) of objects of one class.

    Args:
      given: what it was given.
      kind: the class.
      function: its name.
      name: of its argument.
    """
    wanted = kind.__name__
    if isinstance(given, kind):
        raise ValueError(
            f"{function} got a single {wanted} for {name}; give a list, also of one: [{wanted.lower()}]"
        )
    way = f"a list of {wanted}s" + (": [Run(task) for task in tasks]" if wanted == "Run" else "")
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise ValueError(f"{function} got a {type(given).__name__} for {name}; give {way}")
    for i, one in enumerate(given):
        if not isinstance(one, kind):
            raise ValueError(f"{function} got a {type(one).__name__} as {name}[{i}]; give {way}")


def checked_texts(texts: Any) -> list[str]:
    """The texts as a list.

    Raises: ValueError unless they are a list of strings that can be written as UTF-8.
    """
    if isinstance(texts, str):
        raise ValueError(f"the text {texts[:40]!r} was given in place of a list of texts; give [text]")
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise ValueError(f"a {type(texts).__name__} was given in place of a list of texts; give strings")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"texts[{i}] is a {type(text).__name__}; give strings, such as example.input of an example"
            )
        if lone := next((one for one in text if "\ud800" <= one <= "\udfff"), None):
            raise ValueError(
                f"texts[{i}] has the character {lone!a}, half of a pair, which comes from bytes that are no "
                "UTF-8; give the text in UTF-8"
            )
    return texts


def check_seed(given: Any) -> None:
    """Raise ValueError unless a seed is a whole number that a torch.Generator takes.

    Args:
      given: the seed.
    """
    if not isinstance(given, int) or not 0 <= given <= LARGEST_SEED:
        raise ValueError(f"the seed is {given!r}; give a whole number from 0 to {LARGEST_SEED}")


def runs_of(runs: Any, count: int) -> list[int]:
    """One run for each of `count` texts.

    Args:
      runs: one number for all texts, or one per text.
      count: number of texts.
    Raises: ValueError for another number of runs, or something else than whole numbers.
    """
    try:
        found = (
            [operator.index(runs)] * count
            if hasattr(runs, "__index__") and not getattr(runs, "shape", ())
            else [operator.index(run) for run in runs]
        )
    except TypeError as error:
        raise ValueError(f"runs is {runs!r}; give a row of the source, or one for each text") from error
    if len(found) != count:
        raise ValueError(f"{len(found)} runs were given for {count} texts; give one for all, or one per text")
    return found
