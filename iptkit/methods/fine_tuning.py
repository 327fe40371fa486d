"""Reference methods that change the model's weights: fine-tuning, LoRA and DID.

    fine-tuning   all weights train                                 (transformers' Trainer)
    LoRA          W + B A for the query and value projections       (PEFT; Hu et al. 2021, arXiv 2106.09685)
    DID           theta_0 + M v, v [d_I] trains (all_weights.py)    (Aghajanyan et al. 2020, arXiv 2012.13255)

All three train with transformers' Trainer; iptkit's own trainer is for prompts only. They need the extra
`notebooks` (peft, accelerate). `compare_with_peft` compares prompt tuning here with PEFT's.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from iptkit.engine import limits
from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.head_rows import HeadRow
from iptkit.engine.interface import PromptEngine
from iptkit.engine.layouts import LAYOUTS, tokens_behind
from iptkit.engine.left_memory import prepare
from iptkit.engine.prompt import Prompt
from iptkit.methods import all_weights, prompt_tuning
from iptkit.methods.heads import FixedHead
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.models.backbone import Backbone, load, quiet_transformers
from iptkit.scores import evaluation
from iptkit.storage import files
from iptkit.tasks.examples import Example, Task
from iptkit.training.adam import DivergedError
from iptkit.training.runs import Run
from iptkit.training.state import Clock
from iptkit.training.trainer import dev_scores, seeded

METHODS = ("LoRA", "fine-tuning", "DID")
DENSE = 16  # largest d_I for which DID stores its directions, which take d_I times the model's memory


@dataclass(frozen=True)
class Reference:
    """The result of one training.

    Attributes:
      score: on the set that was asked for.
      log_likelihood: on the same set, of the first right answer per token, in nats (see scores.Outcome).
      num_parameters: number of trained parameters.
      seconds: of the training.
      cpu_seconds: CPU time of the training, user and system, summed over all threads.
      dev_loss: mean token loss on dev if that set was scored or asked for, else None.
    """

    score: float
    log_likelihood: float
    num_parameters: int
    seconds: float
    cpu_seconds: float
    dev_loss: float | None = None


def fine_tune(
    backbone: Backbone,
    task: Task,
    method: str,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    test_examples: int,
    split: str = "test",
    intrinsic_dim: int = 0,
    is_mixed: bool = False,
    dev_examples: int = 0,
    prompt: Tensor | None = None,
) -> Reference:
    """The score of a copy of the model whose weights are trained on a task's few-shot examples, in float32.

    Args:
      backbone: a causal model; it stays unchanged.
      task: trained on its `train` set.
      method: "fine-tuning" (all weights), "LoRA" (rank 8 on the attention's query and value projections) or
        "DID" (all weights along intrinsic_dim random directions, see all_weights.shift_all_weights).
      steps: training steps (AdamW without weight decay, linear warm-up and decay).
      batch: examples per step.
      lr: peak learning rate.
      seed: of the order of the examples and of new weights.
      test_examples: largest number of examples that are scored.
      split: the set that is scored, "test" or "dev".
      intrinsic_dim: d_I >= 1, for "DID".
      is_mixed: matrix products in bfloat16; weights and gradients stay float32.
      dev_examples: also measure the loss on at most so many examples of dev; 0: only if that set is scored.
      prompt: vectors [n, d] behind every text, which stay as they are; None: the words of
        `prompt_tuning.WORDS`.
    Raises: ValueError for an unknown method, DID without d_I or in bfloat16, or a task that does not fit the
      model (see `limits.check`).
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; choose one of {METHODS}")
    if method == "DID" and intrinsic_dim < 1:
        raise ValueError(f"intrinsic_dim is {intrinsic_dim}; DID needs at least 1")
    if method == "DID" and is_mixed:
        raise ValueError("is_mixed would round DID's directions to bfloat16; leave it out")
    copy = load(backbone.name, str(backbone.device), "float32")
    words = copy.tokenizer(prompt_tuning.WORDS, add_special_tokens=False).input_ids
    records = [_record(copy, e, words) for e in task.train]
    if prompt is not None:
        words = _unused(records, len(prompt))
        records = [_record(copy, e, words) for e in task.train]
    _check(Engine(backbone), task, len(words), split, test_examples)
    if dev_examples:
        _check(Engine(backbone), task, len(words), "dev", dev_examples)
    if copy.device.type != "cpu":
        prepare(copy.model)  # transformers' own masks would wait for the GPU at each forward
    model = copy.model.requires_grad_(True)
    if method == "LoRA":
        from peft import LoraConfig

        config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        with seeded(seed, copy.device):  # LoRA's first matrix is random
            model = _with_peft(model, config)
    elif method == "DID":
        all_weights.shift_all_weights(model, intrinsic_dim, seed, is_dense=intrinsic_dim <= DENSE)
    if method != "DID":
        all_weights.forget_directions()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    clock, what = Clock(), f"{method} on task {task.id}"
    with _embedded(copy.model, words, prompt):
        _train(model, records, steps, batch, lr, seed, _padded_with_answers, what, is_mixed)
    spent = clock.read()
    tuned = model.merge_and_unload() if method == "LoRA" else model
    if method == "DID":
        all_weights.settle(tuned)
    engine = Engine(replace(copy, model=tuned.requires_grad_(False).eval()))
    vectors = prompt_tuning.from_words(copy, len(words)) if prompt is None else prompt.to(copy.embedding)
    source = FixedPrompt(vectors[None])
    (found,) = evaluation.outcomes(engine, source, [task], split, test_examples)
    loss = -found.log_likelihood if split == "dev" else None
    if dev_examples:
        loss = -float(dev_scores(engine, source, [Run(task)], dev_examples)[0, 1])
    return Reference(found.score, found.log_likelihood, trained, **spent, dev_loss=loss)


def fine_tune_encoder(
    backbone: Backbone,
    task: Task,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    test_examples: int,
    split: str = "test",
) -> Reference:
    """The score of a copy of an encoder that is trained on a task of classes or tags with a linear head.

    The head reads what heads.WithHead reads: [CLS] for the class of a sentence, the first sub-token of each
    word for tags. Both train as transformers' token classifier; for a sentence only the first token has a
    label.

    Args:
      backbone: an encoder; it stays unchanged.
      task: trained on its `train` set.
      steps: see `fine_tune`.
      batch: see `fine_tune`.
      lr: see `fine_tune`.
      seed: see `fine_tune`.
      test_examples: see `fine_tune`.
      split: the set that is scored, "test" or "dev".
    Raises: ValueError for a task of spans, or one that does not fit the model (see `limits.check`).
    """
    from transformers import AutoModelForTokenClassification

    copy = load(backbone.name, str(backbone.device), "float32")
    engine, config = HeadEngine(copy), copy.model.config
    _check(engine, task, 0, split, test_examples)
    rows = [engine.target_row(e) for e in task.train]
    if rows[0].is_span:
        raise ValueError(f"task {task.id} has spans; fine_tune_encoder takes classes and tags only")
    with seeded(seed, copy.device):  # the head's first weights
        config.num_labels = rows[0].num_classes
        model = AutoModelForTokenClassification.from_config(config).to(copy.device)
    _take_weights(model, copy.model.base_model)
    clock = Clock()
    what = f"fine-tuning on task {task.id}"
    _train(model, [_labelled(row) for row in rows], steps, batch, lr, seed, _padded, what)
    spent = clock.read()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.requires_grad_(False).eval()
    head = torch.cat([model.classifier.weight, model.classifier.bias[:, None]], 1)[None]
    tuned = HeadEngine(replace(copy, model=model.base_model))
    (found,) = evaluation.outcomes(tuned, FixedHead(head), [task], split, test_examples)
    return Reference(found.score, found.log_likelihood, trained, **spent)


def _check(engine: PromptEngine, task: Task, prompt_length: int, split: str, scored: int) -> None:
    """Check before the training that the examples fit the model, see `limits.check`."""
    limits.check(engine, [task], prompt_length, ("train",))
    limits.check(engine, [task], prompt_length, (split,), (split,), scored)


def _take_weights(model: Any, encoder: Any) -> None:
    """Copy an encoder's weights into a token classifier, which has only its linear layer besides.

    Raises: ValueError if it has further layers (ModernBERT), because the score would leave them out.
    """
    missing = model.base_model.load_state_dict(encoder.state_dict(), strict=False).missing_keys
    own = {id(p) for part in (model.base_model, model.classifier) for p in part.parameters()}
    others = [name for name, p in model.named_parameters() if id(p) not in own]
    if missing or others:
        raise ValueError(
            f"{type(model).__name__} has weights that its pre-trained encoder lacks: "
            f"{', '.join([*missing, *others][:3])}; fine-tune a BERT, RoBERTa or DistilBERT model"
        )


def _labelled(row: HeadRow) -> dict[str, list[int]]:
    labels = [-100] * len(row.text)
    for place, label in zip(row.positions, row.answers[0], strict=False):  # none where no word is read
        labels[place] = label
    return {"input_ids": list(row.text), "attention_mask": [1] * len(row.text), "labels": labels}


def _with_peft(model: Any, config: Any) -> Any:
    """PEFT's get_peft_model without a warning: PEFT 0.21 uses a deprecated name of transformers 5.23."""
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(model, config)


def _record(backbone: Backbone, example: Example, words: list[int]) -> dict[str, list[int]]:
    text = backbone.tokenizer(example.input, add_special_tokens=False).input_ids + words
    answer = list(tokens_behind(backbone.tokenizer, "x", f" {example.targets[0]}"))
    answer = answer if example.options else [*answer, backbone.eos]
    return {
        "input_ids": text + answer,
        "attention_mask": [1] * len(text + answer),
        "labels": [-100] * len(text) + answer,
    }


def _unused(records: list[dict[str, list[int]]], count: int) -> list[int]:
    """The first so many tokens that no record has."""
    used = {token for record in records for token in record["input_ids"]}
    return list(itertools.islice((token for token in itertools.count() if token not in used), count))


@contextmanager
def _embedded(model: Any, tokens: Sequence[int], vectors: Tensor | None) -> Iterator[None]:
    """Within it, the model reads these tokens as the vectors; None: as its own embeddings."""
    if vectors is None:
        yield
        return
    layer = model.get_input_embeddings()
    given = vectors.detach().to(layer.weight)

    def read(_: Any, inputs: tuple[Tensor], found: Tensor) -> Tensor:
        for token, vector in zip(tokens, given, strict=True):
            found = torch.where((inputs[0] == token)[..., None], vector.to(found), found)
        return found

    hook = layer.register_forward_hook(read)
    try:
        yield
    finally:
        hook.remove()


def check_gpu(device: torch.device) -> None:
    """Raise ValueError for any GPU but the first: transformers' Trainer always takes the first one."""
    if device.type == "cuda" and device.index not in (None, 0):
        raise ValueError(
            f"the device is {device}, but transformers' Trainer (fine-tuning, LoRA, DID) always takes the "
            "first visible GPU: make only that GPU visible (CUDA_VISIBLE_DEVICES) and give the device cuda"
        )


def _padded(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    size = max(len(r["input_ids"]) for r in rows)
    fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    return {k: torch.tensor([r[k] + [v] * (size - len(r[k])) for r in rows]) for k, v in fill.items()}


def _padded_with_answers(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    """A batch for a causal model, with logits only where the next token of some row belongs to its answer."""
    out = _padded(rows)
    answers = (out["labels"] != -100).any(0).nonzero()[:, 0]
    out["labels"] = out["labels"][:, answers]
    return out | {"logits_to_keep": answers - 1, "shift_labels": out["labels"]}


def _train(
    model: Any,
    records: list[dict[str, list[int]]],
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    collate: Callable[[list[dict[str, list[int]]]], dict[str, Tensor]],
    what: str,
    is_mixed: bool = False,
) -> None:
    """Train with transformers' Trainer. Raises: DivergedError that names `what` if the training diverges."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    device = next(model.parameters()).device
    with files.scratch() as folder, quiet_transformers(), seeded(seed, device):
        arguments = TrainingArguments(
            str(folder),
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=lr,
            lr_scheduler_type="linear",
            warmup_steps=steps // 10,
            seed=seed,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            logging_nan_inf_filter=False,  # it would hide such losses, and wait for a GPU twice a step
            max_grad_norm=1.0,
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=False,
            bf16=is_mixed,
        )
        if device.type == "cuda":
            check_gpu(device)
            arguments._n_gpu = 1  # else Trainer splits each batch among all visible GPUs
        trainer = Trainer(model=model, args=arguments, train_dataset=records, data_collator=collate)
        trainer.remove_callback(PrinterCallback)
        loss = trainer.train().training_loss
        are_finite = all(p.isfinite().all() for p in model.parameters() if p.requires_grad)
        if not (math.isfinite(loss) and are_finite):
            raise DivergedError(
                f"{what} (seed {seed}, lr {lr}) diverged within its {steps} steps: its mean loss is {loss}. "
                "Its result is not stored; lower the learning rate"
            )
        trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)  # removes autocast


def compare_with_peft(
    backbone: Backbone, examples: tuple[Example, ...], prompt_length: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Loss and prompt gradient of iptkit and of PEFT's PromptEmbedding from the same start.

    Both put the prompt before the text.

    Args:
      backbone: a causal model.
      examples: the loss is the mean over the tokens of their first answers.
      prompt_length: n.
    Returns: two dicts with "loss" [] and "gradient" [n, d] in float64, iptkit's and PEFT's.
    """
    from peft import PromptTuningConfig

    engine, start = Engine(backbone, LAYOUTS[1]), prompt_tuning.from_words(backbone, prompt_length)
    rows = [engine.target_row(e) for e in examples]
    tokens = sum(len(row.answers[0]) for row in rows)
    P = start.clone().requires_grad_()
    loss = -engine.log_likelihoods(Prompt(P.expand(len(rows), -1, -1)), rows)[0].sum() / tokens
    (gradient,) = torch.autograd.grad(loss, P)
    ours = {"loss": loss.detach().double(), "gradient": gradient.double()}

    peft = _with_peft(
        backbone.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=prompt_length)
    )
    weight = peft.prompt_encoder["default"].embedding.weight
    weight.data = start.to(weight.dtype).clone()
    total = torch.zeros((), dtype=torch.float64, device=backbone.device)
    for row in rows:
        text, answer = list(row.text), list(row.answers[0])
        ids = torch.tensor([text + answer], device=backbone.device)
        out = peft(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            labels=torch.tensor([[-100] * len(text) + answer], device=backbone.device),
        )
        total = total + out.loss.double() * len(answer) / tokens
    total.backward()
    return ours, {"loss": total.detach(), "gradient": weight.grad.double()}
