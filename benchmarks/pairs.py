"""The rows of benchmarks.speed: iptkit and an alternative, each pair on the same examples.

a to d are training steps, e and f scoring and answering, g deep prompts on an encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from benchmarks.machine import now
from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.layouts import LAYOUTS
from iptkit.engine.prompt import Prompt, PromptSource
from iptkit.engine.rows import Row
from iptkit.engine.sites import find_sites
from iptkit.methods import p_tuning_v2, prompt_tuning, subspace
from iptkit.methods.heads import WithHead
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.models import backbone
from iptkit.models.backbone import Backbone
from iptkit.tasks import suites
from iptkit.tasks.examples import Example, Task
from iptkit.training import trainer
from iptkit.training.runs import FitConfig, Run, draw
from iptkit.training.state import State

MODEL, ENCODER = "smollm2-135m", "minilm-l6"
MIXED = (  # one task of each category; their mean text length is that of core36
    "vader-tweets", "p3-uncertainty", "chatterbot-topic", "wn-example-to-gloss",
    "wn-gloss-to-word", "country-capital", "babel-en-fr", "p3-oanc-names",
)  # fmt: skip
# rows per task and step, virtual tokens, virtual tokens per layer, tasks of the other side in one round
ROWS, PROMPT_LENGTH, DEEP_LENGTH, TURN = 8, 10, 8, 8
SUBSPACE = subspace.SubspaceConfig(intrinsic_dim=5, hidden=256)
CONFIG = FitConfig(steps=1000, rows_per_run=ROWS, lr=0.02, warmup=0.0)
ASKED = 48  # examples that e and f score or answer
CONTEXT_BYTES = 8 << 30  # for the texts of 128 tasks


@dataclass(frozen=True)
class Side:
    """One way to do the work.

    Attributes:
      step: does round i.
      examples: examples of one round.
      warm: rounds until every task has had a step, so that every optimizer has its state.
    """

    step: Callable[[int], Any]
    examples: int
    warm: int = 1


@dataclass(frozen=True)
class Pair:
    """A row of the table.

    Attributes:
      what: the work.
      other: the name of the other side.
      ours: iptkit's side.
      theirs: the other side.
      reading_seconds: time that iptkit takes once, before its first step, for the texts' keys and values.
      kept_bytes: size of these keys and values.
    """

    what: str
    other: str
    ours: Side
    theirs: Side
    reading_seconds: float = 0.0
    kept_bytes: int = 0


Asked = list[tuple[int, Task, Example]]  # index of the prompt, task, example


# ---- iptkit --------------------------------------------------------------------------------------
def runs_of(count: int, suite: str = "core36", names: Sequence[str] = MIXED) -> list[Run]:
    """Return `count` runs: the tasks `names`, repeated with the few-shot sets of further seeds."""
    seeds = range(-(-count // len(names)))
    found = [task for seed in seeds for task in suites.load_suite(suite, seed, only=names, max_test=ASKED)]
    return [Run(task, task.seed) for task in found[:count]]


def ours(engine: Any, source: PromptSource, runs: list[Run]) -> tuple[Side, float]:
    """Return a training step of all runs together, and the seconds of reading the texts before it."""
    state = State(engine, source, runs, CONFIG)
    begun = now(engine.backbone.device)
    engine.keep_contexts(run.examples for run in runs)
    reading = now(engine.backbone.device) - begun

    def step(i: int) -> float:
        state.step = i
        return float(trainer.train_step(engine, state).mean())

    return Side(step, len(runs) * ROWS), reading


# ---- the other side ------------------------------------------------------------------------------
def padded(rows: Sequence[Row], device: torch.device) -> dict[str, Tensor]:
    """Return a batch of texts with their answers, padded on the right, with labels on the answers."""
    lines = [(*row.text, *row.answers[0]) for row in rows]
    ids, mask, labels = (torch.full((len(rows), max(map(len, lines))), f) for f in (0, 0, -100))
    for i, (row, line) in enumerate(zip(rows, lines, strict=True)):
        ids[i, : len(line)], mask[i, : len(line)] = torch.tensor(line), 1
        labels[i, len(row.text) : len(line)] = torch.tensor(row.answers[0])
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {key: value.to(device) for key, value in batch.items()}


def turn_of(runs: Sequence[Run], i: int) -> list[int]:
    """Return the tasks of round i of the task-by-task loop: the next TURN of them, or all."""
    count = min(TURN, len(runs))
    return [(i * count + k) % len(runs) for k in range(count)]


def turns_of_all(runs: Sequence[Run]) -> int:
    """Return the number of rounds until every task has had a step."""
    return -(-len(runs) // len(turn_of(runs, 0)))


def peft_prompt_tuning(backbone: Backbone, runs: list[Run], engine: Engine) -> Side:
    """PEFT's prompt tuning, task by task: an adapter and a torch Adam for each task."""
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=PROMPT_LENGTH)
    words, optimizers = prompt_tuning.from_words(backbone, PROMPT_LENGTH), []
    model: Any = None
    for r in range(len(runs)):
        if model is None:
            model = get_peft_model(backbone.model, config, "task0")
        else:
            model.add_adapter(f"task{r}", config)
        weight = model.prompt_encoder[f"task{r}"].embedding.weight
        weight.data = words.clone()
        optimizers.append(torch.optim.Adam([weight], lr=CONFIG.lr))

    def batch_of(r: int, i: int) -> dict[str, Tensor]:
        return padded([engine.target_row(e) for e in draw(runs[r], i, ROWS)], backbone.device)

    def step(i: int) -> None:
        for r in turn_of(runs, i):
            model.set_adapter(f"task{r}")
            model(**batch_of(r, i)).loss.backward()
            optimizers[r].step()
            optimizers[r].zero_grad()

    return Side(step, len(turn_of(runs, 0)) * ROWS, turns_of_all(runs))


def plain_loop(backbone: Backbone, sources: Sequence[PromptSource], runs: list[Run], engine: Engine) -> Side:
    """A plain transformers loop, task by task, with the source's prompt before the text and torch's Adam.

    Args:
      backbone: the model.
      sources: a prompt source for each task; or one that all tasks share (MSF), which adds up their gradients
        and takes one step after the last task.
      runs: the tasks.
      engine: makes the rows, so that both sides get the same tokens.
    """
    is_shared = len(sources) == 1
    optimizers = [
        torch.optim.Adam([p for p in source.parameters() if p.requires_grad], lr=CONFIG.lr)
        for source in sources
    ]

    def take(optimizer: torch.optim.Adam) -> None:
        optimizer.step()
        optimizer.zero_grad()

    def step(i: int) -> None:
        for r in turn_of(runs, i):
            source = sources[0 if is_shared else r]
            batch = padded([engine.target_row(e) for e in draw(runs[r], i, ROWS)], backbone.device)
            own = torch.full((ROWS,), r if is_shared else 0, device=backbone.device)
            words = backbone.embedding[batch.pop("input_ids")]
            embeds = torch.cat([source(own).embeds.to(words), words], 1)
            ahead = {"attention_mask": 1, "labels": -100}
            more = {k: nn.functional.pad(batch[k], (PROMPT_LENGTH, 0), value=v) for k, v in ahead.items()}
            backbone.model(inputs_embeds=embeds, **more).loss.backward()
            if not is_shared:
                take(optimizers[r])
        if is_shared and turn_of(runs, i)[-1] == len(runs) - 1:
            penalty = sources[0].penalty()
            assert penalty is not None, "MSF has a penalty"
            penalty.backward()
            take(optimizers[0])

    return Side(step, len(turn_of(runs, 0)) * ROWS, turns_of_all(runs))


# ---- the rows ------------------------------------------------------------------------------------
class Bench:
    """Makes the rows for one number type and device."""

    def __init__(self, dtype: str, device: str):
        self.dtype, self.device = dtype, device
        self.mine = backbone.load(MODEL, device, dtype)

    def other(self, name: str = MODEL) -> Backbone:
        """Return another copy of a model, which PEFT may wrap."""
        return backbone.load(name, self.device, self.dtype)

    def prompt_tuning(self, count: int, layout: str = LAYOUTS[0]) -> Pair:
        """A step of prompt tuning, against PEFT's."""
        runs, engine = runs_of(count), Engine(self.mine, layout, context_bytes=CONTEXT_BYTES)
        words = prompt_tuning.from_words(self.mine, PROMPT_LENGTH)
        side, reading = ours(engine, SoftPrompt(words.expand(count, -1, -1)), runs)
        theirs = peft_prompt_tuning(self.other(), runs, engine)
        what = f"prompt tuning, {count} task{'s' * (count > 1)}"
        what += ", PEFT's layout" if layout != LAYOUTS[0] else ""
        return Pair(what, "PEFT", side, theirs, reading, engine.contexts.used_bytes)

    def _bank(self, count: int) -> Tensor:
        words = prompt_tuning.from_words(self.mine, PROMPT_LENGTH).float()
        drawn = torch.randn(count, *words.shape, generator=torch.Generator().manual_seed(0))
        return words.cpu() + drawn * words.std().item()

    def _autoencoder(self, count: int) -> subspace.AutoEncoder:
        generator = torch.Generator().manual_seed(0)
        return subspace.AutoEncoder(self._bank(count), SUBSPACE, generator).to(self.mine.device)

    def ist(self, count: int = 32) -> Pair:
        """A step of IST, against a plain loop over the tasks."""
        runs, engine = runs_of(count), Engine(self.mine, context_bytes=CONTEXT_BYTES)
        decoder = self._autoencoder(count)
        together = subspace.IntrinsicPrompt(decoder, count).to(self.mine.device)
        each = [subspace.IntrinsicPrompt(decoder, 1).to(self.mine.device) for _ in runs]
        side, reading = ours(engine, together, runs)
        theirs = plain_loop(self.mine, each, runs, engine)
        what, kept = f"IST, 5 parameters, {count} tasks", engine.contexts.used_bytes
        return Pair(what, "transformers", side, theirs, reading, kept)

    def msf(self, count: int = 32) -> Pair:
        """A step of MSF, against a plain loop over the tasks."""
        runs, engine = runs_of(count), Engine(self.mine, context_bytes=CONTEXT_BYTES)
        side, reading = ours(engine, self._autoencoder(count), runs)
        theirs = plain_loop(self.mine, [self._autoencoder(count)], runs, engine)
        what, kept = f"MSF step, {count} tasks", engine.contexts.used_bytes
        return Pair(what, "transformers", side, theirs, reading, kept)

    def _asked(self, has_options: bool, count: int, each: int) -> Asked:
        """Return test examples of tasks with or without options, each with `each` prompts."""
        found = [run.task for run in runs_of(len(MIXED))]
        read = [task for task in found if bool(task.test[0].options) == has_options]
        of_task = -(-count // len(read))
        chosen = [(t, task, e) for t, task in enumerate(read) for e in task.test[:of_task]][:count]
        return [(t * each + k, task, e) for t, task, e in chosen for k in range(each)]

    def _room(self, has_options: bool, count: int = ASKED, each: int = 1) -> tuple[Asked, Engine, Tensor]:
        """Return the examples of e or f, an engine, and the prompt of each example [B, n, d]."""
        asked = self._asked(has_options, count, each)
        bank = self._bank(len(MIXED) * each).to(self.mine.embedding)
        of = torch.tensor([t for t, _, _ in asked], device=bank.device)
        return asked, Engine(self.mine, context_bytes=CONTEXT_BYTES), bank[of]

    @staticmethod
    def _read(engine: Engine, asked: Asked) -> None:
        """Compute the texts' keys and values anew."""
        engine.contexts.forget()
        names = dict.fromkeys(t for t, _, _ in asked)
        engine.keep_contexts([e for t, _, e in asked if t == name] for name in names)

    def scoring(self, examples: int = ASKED, each: int = 1) -> Pair:
        """The most likely option: all options share one text and prompt, against one row per option.

        Args:
          examples: the number of examples.
          each: the number of prompts (seeds, methods) that score every example.
        """
        asked, engine, prompt = self._room(True, examples, each)
        rows = [engine.option_row(e) for _, _, e in asked]
        found: dict[str, Any] = {}

        @torch.no_grad()
        def mine(_: int) -> None:
            self._read(engine, asked)
            best = found["mine"] = [0] * len(rows)
            for batch in engine.batches(rows, PROMPT_LENGTH):
                scores = engine.log_likelihoods(Prompt(prompt[batch]), [rows[i] for i in batch])[0]
                for i, choice in zip(batch, scores.argmax(1).tolist(), strict=True):
                    best[i] = choice

        single = [(i, Row(row.text, (answer,))) for i, row in enumerate(rows) for answer in row.answers]

        @torch.no_grad()
        def plain(_: int) -> None:
            scores: list[list[float]] = [[] for _ in rows]
            for start in range(0, len(single), 16):
                part = single[start : start + 16]
                texts = [torch.tensor([*row.text, *row.answers[0]], device=prompt.device) for _, row in part]
                sizes = [len(row.text) for _, row in part]
                lines = [
                    torch.cat([words[:size], prompt[i], words[size:]])
                    for (i, _), size, words in zip(
                        part, sizes, (self.mine.embedding[t] for t in texts), strict=True
                    )
                ]
                batch = pad_sequence(lines, batch_first=True)
                real = pad_sequence([torch.ones(len(line), device=prompt.device) for line in lines], True)
                logits = self.mine.model(inputs_embeds=batch, attention_mask=real.long()).logits
                for b, (i, row) in enumerate(part):
                    first, answer = sizes[b] + PROMPT_LENGTH - 1, row.answers[0]
                    logs = logits[b, first : first + len(answer)].float().log_softmax(-1)
                    scores[i].append(float(logs[range(len(answer)), list(answer)].sum()))
            best = [max(range(len(of_row)), key=of_row.__getitem__) for of_row in scores]
            if self.dtype == "float32" and best != found["mine"]:
                raise AssertionError("both sides of row e should choose the same options")

        count = len(asked)
        what = f"option scoring, {len(single) / count:.1f} options each"
        what += f", {each} prompts a text" if each > 1 else ""
        return Pair(what, "transformers", Side(mine, count), Side(plain, count))

    def greedy(self) -> Pair:
        """Greedy answers, against transformers' generate() on batches of 16 examples of one task."""
        asked, engine, prompt = self._room(False)
        rows = [engine.target_row(e) for _, _, e in asked]
        found: dict[int, str] = {}
        caps = [max(len(engine.target_row(e).answers[0]) for e in task.train) + 2 for _, task, _ in asked]

        def mine(_: int) -> None:
            self._read(engine, asked)
            for batch in engine.batches(rows, PROMPT_LENGTH):
                limits = [caps[i] for i in batch]
                said = engine.greedy(Prompt(prompt[batch]), [rows[i] for i in batch], limits)
                found.update(zip(batch, said, strict=True))

        ends = sorted(engine.words.ends)
        groups = [[i for i, (t, _, _) in enumerate(asked) if t == name] for name in {t for t, _, _ in asked}]
        parts = [group[k : k + 16] for group in groups for k in range(0, len(group), 16)]

        @torch.no_grad()
        def plain(_: int) -> None:
            for part in parts:
                texts = [torch.tensor(rows[i].text, device=prompt.device) for i in part]
                lines = [
                    torch.cat([self.mine.embedding[t], prompt[i]]) for i, t in zip(part, texts, strict=True)
                ]
                embeds = pad_sequence(lines, batch_first=True, padding_side="left")
                sizes = torch.tensor([len(line) for line in lines], device=prompt.device)
                mask = torch.arange(embeds.shape[1], device=prompt.device) >= embeds.shape[1] - sizes[:, None]
                ids = self.mine.model.generate(
                    inputs_embeds=embeds, attention_mask=mask.long(), do_sample=False,
                    max_new_tokens=max(caps[i] for i in part), eos_token_id=ends, pad_token_id=self.mine.eos,
                )  # fmt: skip
                said = self.mine.tokenizer.batch_decode(ids, skip_special_tokens=True)
                same = [
                    found[i] == text.strip().split("\n")[0].strip()
                    for i, text in zip(part, said, strict=True)
                ]
                if self.dtype == "float32" and sum(same) < 0.9 * len(same):  # a tie may fall either way
                    raise AssertionError("both sides of row f should give the same answers")

        return Pair("greedy answers", "transformers", Side(mine, len(asked)), Side(plain, len(asked)))

    def encoder(self, count: int = 8) -> Pair:
        """Deep prompts on the encoder, for tags and classes, against PEFT's prefix tuning task by task."""
        from peft import PrefixTuningConfig, get_peft_model
        from transformers import AutoModelForTokenClassification

        mine = backbone.load(ENCODER, self.device, self.dtype)
        names = ("address-tags", "person-tags", "vader-movieReviewSnippets", "pos-tags")
        runs, sites = runs_of(count, "encoder9", names), find_sites(mine.model)
        generator, engine = torch.Generator().manual_seed(0), HeadEngine(mine, sites)
        classes = max(len(run.task.labels) for run in runs)
        prompt = p_tuning_v2.DeepPrompt(count, sites, DEEP_LENGTH, generator)
        source = WithHead(count, mine.width, classes, generator, prompt).to(mine.device)
        side, reading = ours(engine, source, runs)

        other = backbone.load(ENCODER, self.device, self.dtype)
        config = PrefixTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=DEEP_LENGTH)
        models, optimizers = [], []
        for run in runs:  # one model per task around the same encoder, because heads differ in size
            other.model.config.num_labels = len(run.task.labels)
            model = AutoModelForTokenClassification.from_config(other.model.config)
            model.bert = other.model.base_model
            models.append(get_peft_model(model.to(mine.device, mine.model.dtype).eval(), config))
            trained = [p for p in models[-1].parameters() if p.requires_grad]
            optimizers.append(torch.optim.Adam(trained, lr=CONFIG.lr))

        def step(i: int) -> None:
            for r in turn_of(runs, i):
                rows = [engine.target_row(e) for e in draw(runs[r], i, ROWS)]
                size = max(len(row.text) for row in rows)
                ids, mask, labels = (torch.full((ROWS, size), f) for f in (0, 0, -100))
                for b, row in enumerate(rows):
                    ids[b, : len(row.text)], mask[b, : len(row.text)] = torch.tensor(row.text), 1
                    labels[b, list(row.positions)] = torch.tensor(row.answers[0])
                batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
                models[r](**{k: v.to(mine.device) for k, v in batch.items()}).loss.backward()
                optimizers[r].step()
                optimizers[r].zero_grad()

        what = f"deep prompts, encoder, {count} tasks"
        theirs = Side(step, len(turn_of(runs, 0)) * ROWS, warm=turns_of_all(runs))
        return Pair(what, "PEFT (prefix)", side, theirs, reading)


PAIRS: dict[str, Callable[[Bench], Pair]] = {
    "a": lambda bench: bench.prompt_tuning(1),
    "b8": lambda bench: bench.prompt_tuning(8),
    "b8-same": lambda bench: bench.prompt_tuning(8, LAYOUTS[1]),
    "b32": lambda bench: bench.prompt_tuning(32),
    "b128": lambda bench: bench.prompt_tuning(128),
    "c": Bench.ist,
    "d": Bench.msf,
    "e": Bench.scoring,
    "e12": lambda bench: bench.scoring(12, 12),
    "f": Bench.greedy,
    "g8": Bench.encoder,
    "g32": lambda bench: bench.encoder(32),
}
