"""Answers of a trained prompt to texts of yours: what `iptkit ask` does.

    engine, source = open_prompt("mine.prompt.safetensors")
    print(ask(engine, source, ["what a lovely film"])[0].answer)

How a prompt answers follows from the task that it was trained on, which its file names: for a classification
with the likeliest label, for words to tag with a tag for every word, for multiple choice with one of the
options that come with each call, for any other task with a line of text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from iptkit.engine import limits
from iptkit.engine.calls import check_engine, check_seed, checked_texts
from iptkit.engine.compatibility import check_runs, check_source
from iptkit.engine.decoding import SampleConfig
from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.interface import PromptEngine
from iptkit.engine.mask_engine import MaskEngine
from iptkit.engine.prompt import PromptSource
from iptkit.prompts.prompt_runs import trained_on
from iptkit.tasks.examples import Example, TaggedExample, words_of

LINE_END = "\n"  # a free answer in training is one line


@dataclass(frozen=True)
class Sampling:
    """How free answers are generated; the defaults choose the likeliest token each time.

    Attributes:
      max_new_tokens: largest number of tokens of an answer, >= 1.
      do_sample: draw tokens from their probabilities.
      temperature: > 0, for do_sample.
      top_p: in (0, 1], for do_sample.
      seed: of the draws, from 0 to 2^63 - 1.

    Raises: ValueError for a number out of its range, and for temperature or top_p without do_sample.
    """

    max_new_tokens: int = 32
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        SampleConfig(self.max_new_tokens, self.do_sample, self.temperature, self.top_p)  # checks them
        check_seed(self.seed)


@dataclass(frozen=True)
class Answer:
    """The answer to one text.

    Attributes:
      text: as given.
      answer: an option, the tags of all words, or a generated text.
      probability: of the answer among the options; None without options.
      options: probability of each option, likeliest first; empty without options.
    """

    text: str
    answer: str
    probability: float | None = None
    options: Mapping[str, float] = field(default_factory=dict)


def ask(
    engine: PromptEngine,
    source: PromptSource,
    texts: Sequence[str],
    run: int = 0,
    options: Sequence[str] | None = None,
    sampling: Sampling | None = None,
) -> list[Answer]:
    """The answers to texts.

    Args:
      engine: the frozen model, with the layout and sites that the prompts need.
      source: trained prompts; `source.about` says what task each run was trained on.
      texts: inputs as in training.
      run: index of the run that answers all of them.
      options: the choices; None for the labels of the run's task, if it is a classification. A head chooses
        from its own labels only, so all of them must be given, in any order.
      sampling: for free answers; None for the defaults.

    Raises: ValueError for something else than an engine, a run that the prompts do not have, an empty text or
      one that is no UTF-8, fewer than 2 options, options that are missing (multiple choice) or not those of
      a head, do_sample where nothing is generated, and free answers of an encoder.

    Example:
      >>> from iptkit.methods.prompt_tuning import SoftPrompt
      >>> from iptkit.models.backbone import load
      >>> model = load("tiny-causal")
      >>> source = SoftPrompt(torch.zeros(1, 4, model.width))
      >>> answers = ask(Engine(model), source, ["I had a sad trip"], options=["good", "bad"])
      >>> answers[0].answer in ("good", "bad")
      True
    """
    check_engine(engine)
    check_runs(source, [run])
    for text in (texts := checked_texts(texts)):
        if not text.strip():
            raise ValueError("a text is empty; give a text to answer")
    trained = trained_on(source.about, run)
    category, labels = trained.get("category"), tuple(trained.get("labels") or ())
    is_head = isinstance(engine, HeadEngine) and not isinstance(engine, MaskEngine)  # words are no head
    if is_head and category != "tag":  # without a header, classes have no names: then options give them
        labels = labels or tuple(f"class {i}" for i in range(source.finished().head.shape[1]))  # type: ignore[union-attr]
    if category == "tag":
        _refuse(options, sampling, "one tag for every word")
        return _tags(engine, source, texts, run, labels)
    choices = tuple(options or (labels if category == "cls" or is_head else ()))
    if not choices and category == "mcqa":
        raise ValueError("the task's options differ from question to question; give them: --options A,B")
    if not choices:
        if not isinstance(engine, Engine):
            raise ValueError(f"{engine.backbone.name} cannot write free answers; give options: --options A,B")
        return _free(engine, source, texts, run, sampling or Sampling())
    if len(set(choices)) < max(2, len(choices)) or not all(choice.strip() for choice in choices):
        raise ValueError(f"options are {', '.join(choices)}; give at least two different ones")
    if is_head and len(choices) != len(labels):
        raise ValueError(f"{len(choices)} options were given, but the head has {len(labels)} classes")
    if is_head and trained.get("labels"):
        if set(choices) != set(labels):
            raise ValueError(
                f"options are {', '.join(choices)}, but the head of this prompt chooses from "
                f"{', '.join(labels)}; give these, or leave options out"
            )
        choices = labels  # a head's classes have the order of its training
    _refuse(None, sampling, f"one of its options ({', '.join(choices)})")
    return _choices(engine, source, texts, run, choices)


def _refuse(options: Sequence[str] | None, sampling: Sampling | None, what: str) -> None:
    if options or (sampling is not None and sampling.do_sample):
        name = "options" if options else "sampling (--sample)"
        raise ValueError(f"this prompt answers with {what}; leave {name} out")


@torch.no_grad()
def _choices(
    engine: PromptEngine,
    source: PromptSource,
    texts: Sequence[str],
    run: int,
    options: tuple[str, ...],
) -> list[Answer]:
    """Answers among options: log p(option | text) of each, renormalised over the options."""
    length = check_source(engine, source.eval())
    rows = [engine.option_row(Example(text.rstrip(), options[:1], options)) for text in texts]
    found: dict[int, Answer] = {}
    for batch in engine.batches(rows, length):
        of = torch.full((len(batch),), run, device=engine.backbone.device)
        scores, _ = engine.log_likelihoods(source(of), [rows[i] for i in batch])
        for i, line in zip(batch, scores.double().softmax(-1).tolist(), strict=True):
            ranked = sorted(zip(options, line, strict=True), key=lambda pair: -pair[1])
            found[i] = Answer(texts[i], *ranked[0], options=dict(ranked))
    return [found[i] for i in range(len(texts))]


@torch.no_grad()
def _tags(
    engine: PromptEngine, source: PromptSource, texts: Sequence[str], run: int, labels: tuple[str, ...]
) -> list[Answer]:
    """One tag for every word."""
    length = check_source(engine, source.eval())
    unknown = [" ".join(labels[:1] * len(words_of(text))) for text in texts]
    rows = [
        engine.target_row(TaggedExample(text, (tags,), labels=labels))
        for text, tags in zip(texts, unknown, strict=True)
    ]
    found: dict[int, Answer] = {}
    for batch in engine.batches(rows, length):
        of = torch.full((len(batch),), run, device=engine.backbone.device)
        made = engine.greedy(source(of), [rows[i] for i in batch], [limits.MAX_ANSWER_TOKENS] * len(batch))
        found |= {i: Answer(texts[i], tags) for i, tags in zip(batch, made, strict=True)}
    return [found[i] for i in range(len(texts))]


def _free(
    engine: Engine, source: PromptSource, texts: Sequence[str], run: int, sampling: Sampling
) -> list[Answer]:
    """One generated line for every text."""
    # a generator is for draws only: greedy answers refuse one
    generator = torch.Generator().manual_seed(sampling.seed) if sampling.do_sample else None
    made = engine.generate(
        source,
        [text.rstrip() for text in texts],
        runs=run,
        max_new_tokens=sampling.max_new_tokens,
        do_sample=sampling.do_sample,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        generator=generator,
        stop=(LINE_END,),
    )
    return [Answer(text, answer.strip()) for text, answer in zip(texts, made, strict=True)]
