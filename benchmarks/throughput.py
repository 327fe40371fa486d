"""Examples per second of prompt tuning: iptkit against PEFT, and both against the machine's matrix products.

python -m benchmarks.throughput [--dtypes float32,bfloat16] [--rounds 5] [--device cpu] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from iptkit import backbones, files, prompts, stamp, tasks, train
from iptkit.backbones import Backbone
from iptkit.engine import LAYOUTS, Engine
from iptkit.prompts import SoftPrompt

MODEL = "smollm2-135m"
TASKS = (  # every category; together their texts are as long as core36's on average
    "vader-tweets", "p3-uncertainty", "chatterbot-topic", "wn-example-to-gloss",
    "wn-gloss-to-word", "country-capital", "babel-en-fr", "p3-oanc-names",
)  # fmt: skip
ROWS, PROMPT_LENGTH = 16, 10
CONFIG = train.FitConfig(steps=1000, rows_per_run=ROWS, lr=0.02, warmup=0.0)


class Iptkit:
    """All tasks in one step, the texts' keys and values computed once before the first step."""

    def __init__(self, backbone: Backbone, runs: list[train.Run], layout: str = LAYOUTS[0]):
        words = prompts.from_words(backbone, PROMPT_LENGTH)
        self.engine, self.text_too = Engine(backbone, layout), layout == LAYOUTS[1]
        self.state = train._State(SoftPrompt(words.expand(len(runs), -1, -1)), runs, CONFIG)
        begun = now(backbone)
        self.engine.keep_contexts(run.examples for run in runs)
        self.reading_seconds = now(backbone) - begun

    def step(self, step: int) -> float:
        self.state.step = step
        return float(train.train_step(self.engine, self.state).mean())

    def tokens(self, step: int) -> tuple[int, int]:
        """Tokens through the layers, and positions through the head; there is no padding."""
        examples = [e for run in self.state.runs for e in train.draw(run, step, ROWS)]
        rows = [self.engine.target_row(e) for e in examples]
        layers = sum(PROMPT_LENGTH + row.cost + self.text_too * len(row.text) for row in rows)
        return layers, sum(len(row.answers[0]) for row in rows)


class Peft:
    """PEFT's prompt tuning, an adapter per task, task by task; labels on the answer, padded to the right."""

    def __init__(self, backbone: Backbone, runs: list[train.Run], engine: Engine):
        from peft import PromptTuningConfig, get_peft_model

        config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=PROMPT_LENGTH)
        self.backbone, self.runs, self.engine, self.optimizers = backbone, runs, engine, []
        words = prompts.from_words(backbone, PROMPT_LENGTH)
        for r in range(len(runs)):
            if r == 0:
                self.model = get_peft_model(backbone.model, config, f"task{r}")
            else:
                self.model.add_adapter(f"task{r}", config)
            weight = self.model.prompt_encoder[f"task{r}"].embedding.weight
            weight.data = words.clone()
            self.optimizers.append(torch.optim.Adam([weight], lr=CONFIG.lr))

    def step(self, step: int) -> float:
        losses = []
        for r, (run, optimizer) in enumerate(zip(self.runs, self.optimizers, strict=True)):
            self.model.set_adapter(f"task{r}")
            loss = self.model(**self._batch(run, step)).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        return sum(losses) / len(losses)

    def _batch(self, run: train.Run, step: int) -> dict[str, Tensor]:
        rows = [self.engine.target_row(e) for e in train.draw(run, step, ROWS)]
        lines = [(*row.text, *row.answers[0]) for row in rows]
        ids, mask, labels = (torch.full((len(rows), max(map(len, lines))), f) for f in (0, 0, -100))
        for i, (row, line) in enumerate(zip(rows, lines, strict=True)):
            ids[i, : len(line)], mask[i, : len(line)] = torch.tensor(line), 1
            labels[i, len(row.text) : len(line)] = torch.tensor(row.answers[0])
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return {key: value.to(self.backbone.device) for key, value in batch.items()}

    def tokens(self, step: int) -> tuple[int, int]:
        """Tokens through the layers and through the head: all of them, padding included."""
        batches = [self._batch(run, step)["input_ids"] for run in self.runs]
        total = sum(ids.shape[0] * (ids.shape[1] + PROMPT_LENGTH) for ids in batches)
        return total, total


def now(backbone: Backbone) -> float:
    if backbone.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(backbone: Backbone, work: Callable[[], Any]) -> float:
    begun = now(backbone)
    work()
    return now(backbone) - begun


def linear_shapes(backbone: Backbone) -> tuple[Counter, int]:
    """[K, N] of every linear layer but the head with its count, and the number of weights in the head."""
    head = backbone.model.get_output_embeddings()
    layers = [m for m in backbone.model.modules() if isinstance(m, nn.Linear) and m is not head]
    return Counter((m.in_features, m.out_features) for m in layers), head.weight.numel()


def flops(backbone: Backbone, layer_tokens: int, head_positions: int) -> tuple[float, float]:
    """FLOPs of the layers and of the head: 4 per weight and token, 2 forward and 2 backward.

    Frozen weights get no gradient of their own; attention scores, norms and softmax are left out.
    """
    shapes, head = linear_shapes(backbone)
    weights = sum(k * n * count for (k, n), count in shapes.items())
    return 4.0 * weights * layer_tokens, 4.0 * head * head_positions


def matmul_peak(backbone: Backbone, tokens: int, rounds: int) -> float:
    """FLOP/s of the layers' products alone: x [M, K] times [K, N] forward, g [M, N] times [N, K] backward."""
    dtype = torch.bfloat16 if backbone.dtype == "mixed" else getattr(torch, backbone.dtype)
    shapes, _ = linear_shapes(backbone)
    seconds, total = 0.0, 0.0
    for (k, n), count in shapes.items():
        x, gradient, weight = (
            torch.randn(s, device=backbone.device).to(dtype) for s in ((tokens, k), (tokens, n), (n, k))
        )

        def both(x=x, gradient=gradient, weight=weight) -> None:
            nn.functional.linear(x, weight)
            gradient @ weight

        both()
        seconds += count * min(timed(backbone, both) for _ in range(max(3, rounds)))
        total += count * 4.0 * tokens * k * n
    return total / seconds


def measure(dtype: str, rounds: int, device: str, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """iptkit and PEFT in one dtype, taking turns; the first step of each is not counted."""
    runs = [train.Run(task) for task in tasks.load_suite("core36", only=names, max_test=1)]
    mine = backbones.load(MODEL, device, dtype)
    ours = Iptkit(mine, runs)
    both = {
        "iptkit": ours,
        "same layout": Iptkit(mine, runs, LAYOUTS[1]),
        "PEFT": Peft(backbones.load(MODEL, device, dtype), runs, ours.engine),
    }
    seconds: dict[str, list[float]] = {name: [] for name in both}
    losses = {}
    for step in range(rounds + 1):
        for name, method in both.items():
            seconds[name].append(timed(mine, lambda m=method, s=step: losses.update({name: m.step(s)})))  # noqa: B023
    peak = matmul_peak(mine, ours.tokens(0)[0], rounds)
    return [
        row(
            name,
            mine,
            len(runs) * ROWS,
            method.tokens(rounds),
            seconds[name][1:],
            peak,
            losses[name],
            ours.reading_seconds,
        )
        for name, method in both.items()
    ]


def row(name, backbone, num_rows, tokens, seconds, peak, loss, reading) -> dict[str, Any]:
    layers, head = flops(backbone, *tokens)
    typical = median(seconds)
    return {
        "method": name,
        "dtype": backbone.dtype,
        "examples_per_second": num_rows / typical,
        "step_seconds": typical,
        "all_step_seconds": list(seconds),
        "layer_tokens": tokens[0],
        "head_positions": tokens[1],
        "layer_gflop": layers / 1e9,
        "head_gflop": head / 1e9,
        "tflop_per_second": (layers + head) / typical / 1e12,
        "matmul_peak_tflop_per_second": peak / 1e12,
        "fraction_of_peak": (layers + head) / typical / peak,
        "reading_texts_seconds": reading if name == "iptkit" else 0.0,
        "last_mean_loss": loss,
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{'method':13}{'dtype':10}{'examples/s':>11}{'x PEFT':>8}{'s/step':>8}{'tokens':>8}{'head':>7}"
        f"{'GFLOP':>8}{'+ head':>8}{'TFLOP/s':>9}{'peak':>7}{'of peak':>9}"
    ]
    theirs = {r["dtype"]: r["examples_per_second"] for r in rows if r["method"] == "PEFT"}
    for r in rows:
        lines.append(
            f"{r['method']:13}{r['dtype']:10}{r['examples_per_second']:11.1f}"
            f"{r['examples_per_second'] / theirs[r['dtype']]:8.1f}{r['step_seconds']:8.2f}"
            f"{r['layer_tokens']:8d}{r['head_positions']:7d}{r['layer_gflop']:8.0f}{r['head_gflop']:8.0f}"
            f"{r['tflop_per_second']:9.3f}{r['matmul_peak_tflop_per_second']:7.3f}{r['fraction_of_peak']:9.0%}"
        )
    return "\n".join(lines)


def with_reading(rows: list[dict[str, Any]], lengths: tuple[int, ...] = (30, 100, 1000)) -> str:
    """How many times PEFT's examples per second iptkit does over whole trainings, its reading included."""
    lines = []
    for r in (r for r in rows if r["method"] == "iptkit"):
        peft = next(p for p in rows if (p["method"], p["dtype"]) == ("PEFT", r["dtype"]))["step_seconds"]
        reading = r["reading_texts_seconds"]
        ratios = (k * peft / (k * r["step_seconds"] + reading) for k in lengths)
        told = ", ".join(f"{k} steps {ratio:.1f} x PEFT" for k, ratio in zip(lengths, ratios, strict=True))
        lines.append(f"{r['dtype']:10}reading {reading:.1f} s; {told}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument(
        "--dtypes", help="default: float32,bfloat16, and mixed where the device has bf16 units"
    )
    parser.add_argument("--rounds", type=int, default=5, help="counted steps of each (default 5)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default cpu)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "--tasks", default=",".join(TASKS), help="task ids of core36 (default: eight of them)"
    )
    given = parser.parse_args()
    names = tuple(given.tasks.split(","))
    native = backbones.resolve_dtype(MODEL, given.device)
    dtypes = given.dtypes or ",".join(dict.fromkeys(("float32", "bfloat16", native)))
    warnings.filterwarnings("ignore", category=FutureWarning)  # of the other libraries about each other
    rows = []
    for dtype in dtypes.split(","):
        rows += measure(dtype, given.rounds, given.device, names)
    about = {
        **dict(stamp.rows()),
        "model": MODEL, "device": given.device, "native dtype": native, "threads": torch.get_num_threads(),
        "tasks": ", ".join(names), "rows per task": ROWS, "prompt length": PROMPT_LENGTH,
        "rounds": given.rounds,
    }  # fmt: skip
    print("\n".join(f"{key:16}{value}" for key, value in about.items()))
    print(f"\n{len(names)} tasks x {ROWS} rows, {PROMPT_LENGTH} prompt tokens; median of {given.rounds}\n")
    print(table(rows))
    print("\nBefore its first step iptkit reads all training texts once. That included:\n")
    print(with_reading(rows))
    if given.json:
        files.write_json(given.json, {"about": json.loads(json.dumps(about, default=str)), "rows": rows})


if __name__ == "__main__":
    main()
