"""References of others' making: fine-tuning (transformers' Trainer), LoRA and prompt tuning (PEFT).

DID, the intrinsic dimension of all weights, trains with the same Trainer.

They need the extra `notebooks` (peft, accelerate). There is no second trainer of ours.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from iptkit.engine import limits
from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine, HeadRow
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
from iptkit.training.trainer import dev_scores, seeded

METHODS = ("LoRA", "fine-tuning", "DID")
DENSE = 16  # d_I up to which DID's directions are written out: they take d_I times the model's memory


@dataclass(frozen=True)
class Reference:
    """One training of a reference: its score, the numbers it trained, its seconds; on dev also its loss."""

    score: float
    numbers: int
    seconds: float
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
) -> Reference:
    """Train a copy of the model itself on a task's few-shot examples and score it, in float32.

    Args:
      method: "fine-tuning" (all weights), "LoRA" (Hu et al. 2021; rank 8 on the attention's query
        and value projections) or "DID" (all weights along intrinsic_dim random directions, see
        baselines.shift_all_weights).
      steps, batch, lr, seed: Trainer's settings (AdamW without weight decay, linear decay).
      test_examples: first so many of the set that is scored.
      split: that set, "test" or "dev".
      intrinsic_dim: d_I >= 1 of "DID".
      is_mixed: train with products in bfloat16; weights and their gradients stay float32.
    Raises: ValueError for an unknown method, DID without d_I or in bfloat16, and see limits.check.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; choose one of {METHODS}")
    if method == "DID" and intrinsic_dim < 1:
        raise ValueError(f"intrinsic_dim is {intrinsic_dim}; DID needs at least 1")
    if method == "DID" and is_mixed:
        raise ValueError("DID's directions would be rounded to bfloat16; leave out is_mixed")
    copy = load(backbone.name, str(backbone.device), "float32")
    words = copy.tokenizer(prompt_tuning.WORDS, add_special_tokens=False).input_ids
    _check(Engine(backbone), task, len(words), split, test_examples)
    if copy.device.type != "cpu":
        prepare(copy.model)  # transformers' own masks ask a GPU at each forward whether all is real
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
    numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
    begun = time.time()
    records = [_record(copy, e, words) for e in task.train]
    what = f"{method} on task {task.id}"
    _train(model, records, steps, batch, lr, seed, _padded_with_answers, what, is_mixed)
    seconds = time.time() - begun
    tuned = model.merge_and_unload() if method == "LoRA" else model
    if method == "DID":
        all_weights.settle(tuned)
    engine = Engine(replace(copy, model=tuned.requires_grad_(False).eval()))
    source = FixedPrompt(prompt_tuning.from_words(copy, len(words))[None])
    score = evaluation.evaluate(engine, source, [task], split, test_examples)[0]
    loss = None
    if split == "dev":
        loss = -float(dev_scores(engine, source, [Run(task)], test_examples)[0, 1])
    return Reference(score, numbers, seconds, loss)


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
    """Train a copy of an encoder, all weights and a linear head, on a task of classes or tags, and score it.

    The head is that of heads.WithHead: on [CLS] for a sentence's class, on first sub-tokens for tags. It is
    transformers' token classifier, where for a sentence only the first token carries a label.

    Args:
      split: the set that is scored, "test" or "dev"; the others as for `fine_tune`.
    Raises: ValueError for a task of spans, and see limits.check.
    """
    from transformers import AutoModelForTokenClassification

    copy = load(backbone.name, str(backbone.device), "float32")
    engine, config = HeadEngine(copy), copy.model.config
    _check(engine, task, 0, split, test_examples)
    rows = [engine.target_row(e) for e in task.train]
    if rows[0].is_span:
        raise ValueError(f"task {task.id} asks for spans; fine_tune_encoder knows classes and tags only")
    with seeded(seed, copy.device):  # the head's first weights
        config.num_labels = rows[0].num_classes
        model = AutoModelForTokenClassification.from_config(config).to(copy.device)
    _take_weights(model, copy.model.base_model)
    begun = time.time()
    what = f"fine-tuning on task {task.id}"
    _train(model, [_labelled(row) for row in rows], steps, batch, lr, seed, _padded, what)
    seconds = time.time() - begun
    numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.requires_grad_(False).eval()
    head = torch.cat([model.classifier.weight, model.classifier.bias[:, None]], 1)[None]
    tuned = HeadEngine(replace(copy, model=model.base_model))
    score = evaluation.evaluate(tuned, FixedHead(head), [task], split, test_examples)[0]
    return Reference(score, numbers, seconds)


def _check(engine: Engine | HeadEngine, task: Task, prompt_length: int, split: str, scored: int) -> None:
    """What is trained on and what is scored, before the training; see limits.check."""
    limits.check(engine, [task], prompt_length, ("train",))
    limits.check(engine, [task], prompt_length, (split,), (split,), scored)


def _take_weights(model: Any, encoder: Any) -> None:
    """Put the encoder's weights into a token classifier that has nothing else but its linear layer.

    Raises: ValueError for one with more (ModernBERT), whose other part the score would leave out.
    """
    missing = model.base_model.load_state_dict(encoder.state_dict(), strict=False).missing_keys
    own = {id(p) for part in (model.base_model, model.classifier) for p in part.parameters()}
    others = [name for name, p in model.named_parameters() if id(p) not in own]
    if missing or others:
        raise ValueError(
            f"{type(model).__name__} has parts that its pre-trained encoder has not: "
            f"{', '.join([*missing, *others][:3])}; fine-tune a BERT, RoBERTa or DistilBERT model"
        )


def _labelled(row: HeadRow) -> dict[str, list[int]]:
    labels = [-100] * len(row.text)
    for place, label in zip(row.positions, row.answers[0], strict=False):  # no label where no word is read
        labels[place] = label
    return {"input_ids": list(row.text), "attention_mask": [1] * len(row.text), "labels": labels}


def _with_peft(model: Any, config: Any) -> Any:
    """PEFT's get_peft_model; PEFT 0.21 asks transformers 5.23 for an attribute under its old name."""
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


def check_gpu(device: torch.device) -> None:
    """Raise ValueError for a GPU that transformers' Trainer would not take: it takes the first it sees."""
    if device.type == "cuda" and device.index not in (None, 0):
        raise ValueError(
            f"the device is {device}, and transformers' Trainer (fine-tuning, LoRA, DID) takes the first GPU "
            "that it sees: show this process that GPU only (CUDA_VISIBLE_DEVICES) and give the device cuda"
        )


def _padded(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    size = max(len(r["input_ids"]) for r in rows)
    fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    return {k: torch.tensor([r[k] + [v] * (size - len(r[k])) for r in rows]) for k, v in fill.items()}


def _padded_with_answers(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    """A batch of a causal model that asks for logits only where some row's next token is of its answer."""
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
    """Train with transformers' Trainer. Raises: DivergedError, with `what` is trained, if it diverges."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    device = next(model.parameters()).device
    own = seeded(seed, device)  # Trainer draws from there on
    with files.scratch() as folder, quiet_transformers(), own:
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
            logging_nan_inf_filter=False,  # it leaves losses out of their mean, and asks a GPU twice a step
            max_grad_norm=1.0,
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=False,
            bf16=is_mixed,
        )
        if device.type == "cuda":
            check_gpu(device)
            arguments._n_gpu = 1  # else Trainer spreads each batch over all GPUs that it sees
        trainer = Trainer(model=model, args=arguments, train_dataset=records, data_collator=collate)
        trainer.remove_callback(PrinterCallback)
        loss = trainer.train().training_loss
        are_finite = all(p.isfinite().all() for p in model.parameters() if p.requires_grad)
        if not (math.isfinite(loss) and are_finite):
            raise DivergedError(
                f"{what} (seed {seed}, lr {lr}) diverged within its {steps} steps: its mean loss is {loss}. "
                "Nothing of it is stored as finished; lower its learning rate"
            )
        trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)  # no autocast any more


def compare_with_peft(
    backbone: Backbone, examples: tuple[Example, ...], prompt_length: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Loss and prompt gradient of iptkit and of PEFT's PromptEmbedding from the same start.

    Both put the prompt before the text.

    Returns: two dicts with "loss" [] and "gradient" [n, d], in float64: ours, PEFT's.
    """
    from peft import PromptTuningConfig

    engine, start = Engine(backbone, LAYOUTS[1]), prompt_tuning.from_words(backbone, prompt_length)
    rows = [engine.target_row(e) for e in examples]
    tokens = sum(len(row.answers[0]) for row in rows)
    P = start.clone().requires_grad_()
    loss = -engine.log_likelihoods(Prompt(P.expand(len(rows), -1, -1)), rows)[0].sum() / tokens
    loss.backward()
    ours = {"loss": loss.detach().double(), "gradient": P.grad.double()}

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
