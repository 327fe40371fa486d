"""How far are the engine's results from float64, by number type and kind of CPU?

python -m benchmarks.errors [--kinds native,AVX512_CORE,AVX2] [--tasks 12] [--json FILE]

An older kind of CPU is simulated by limiting the instructions that the libraries use, in a process of its
own. A CPU without those instructions uses what it has. Log-likelihoods are those of one sentence of reserved
tokens, where rounding errors are larger than on texts, by the engine and by the model's own forward pass;
errors are relative to the log-likelihood of the first answer. Prompt gradients are those of real tasks, with
four training rows and a prompt of ten words each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.machine import keep
from benchmarks.pairs import MODEL
from iptkit.engine.engine import Engine
from iptkit.engine.prompt import Prompt
from iptkit.engine.rows import Row
from iptkit.methods import prompt_tuning
from iptkit.models.backbone import Backbone, load
from iptkit.models.devices import native_dtype
from iptkit.tasks import examples, suites

KINDS = {
    "native": {},
    "AVX512_CORE": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}
DTYPES = ("float32", "mixed", "bfloat16")
TEXT, PROMPT, ANSWER = range(4, 14), range(14, 17), range(17, 20)
OTHERS = range(4, 36)  # one answer alone can be right by chance
LENGTH, ROWS = 10, 4


@contextmanager
def unchecked() -> Iterator[None]:
    """Within this context engines accept every model, so that refused ones are measured too."""
    with mock.patch.object(Engine, "_check_scores", lambda self: None):
        yield


@torch.no_grad()
def of_engine(engine: Engine) -> Tensor:
    """Return the log-likelihoods of the sentence's answers [1 + 32]."""
    row = Row(tuple(TEXT), (tuple(ANSWER), *((i,) for i in OTHERS)))
    vectors = engine.backbone.embedding[list(PROMPT)][None]
    return engine.log_likelihoods(Prompt(vectors), [row])[0][0].double()


@torch.no_grad()
def of_model(backbone: Backbone) -> Tensor:
    """Return the same log-likelihoods by the model's own forward pass."""
    ids = torch.tensor([[*TEXT, *PROMPT, *ANSWER[:-1]]])
    logits = backbone.model(input_ids=ids, use_cache=False).logits[0, -len(ANSWER) :]
    logs = logits.double().log_softmax(-1)
    first = logs.gather(1, torch.tensor(ANSWER)[:, None]).sum()
    return torch.cat([first[None], logs[0, OTHERS.start : OTHERS.stop]])


def gradients(engine: Engine, given: list[examples.Task]) -> list[Tensor]:
    """Return the gradient of each task's prompt; the loss is the sum of its rows' mean token losses."""
    found = []
    start = prompt_tuning.from_words(engine.backbone, LENGTH)
    for task in given:
        rows = [engine.target_row(example) for example in task.train[:ROWS]]
        vectors = start.expand(len(rows), -1, -1).clone().requires_grad_()
        scores, tokens = engine.log_likelihoods(Prompt(vectors), rows)
        (gradient,) = torch.autograd.grad((-scores[:, 0] / tokens[:, 0]).sum(), vectors)
        found.append(gradient.double().sum(0))
    return found


def of_this_cpu(count: int) -> dict[str, Any]:
    """Return the errors of every number type in this process."""
    loaded = suites.load_suite("core36", max_test=1)
    given = loaded[:: max(1, len(loaded) // count)][:count]
    exact, out = None, {}
    for dtype in ("float64", *DTYPES):
        backbone, taken = load(MODEL, "cpu", dtype), True
        try:
            Engine(backbone)
        except ValueError:
            taken = False
        with unchecked():
            engine = Engine(backbone)
        scores, own, grads = of_engine(engine), of_model(backbone), gradients(engine, given)
        if exact is None:
            exact = scores, own, grads
            continue
        size = exact[1][0].abs()
        off, off_own = ((found - exact[1]).abs() / size for found in (scores, own))
        of_gradient = [float((g - e).norm() / e.norm()) for g, e in zip(grads, exact[2], strict=True)]
        out[dtype] = {
            "is_taken": taken,
            "engine": [float(off[0]), float(off.max())],
            "model": [float(off_own[0]), float(off_own.max())],
            "gradient": [median(of_gradient), max(of_gradient)],
        }
    return {"errors": out, "native_dtype": native_dtype(torch.device("cpu"))}


def table(found: dict[str, Any]) -> str:
    """Return the errors by kind of CPU as a Markdown table."""
    heads = ("CPU kind (`auto`)", "type", "engine", "model's own forward", "prompt gradient", "taken")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for kind, of_kind in found.items():
        for dtype, errors in of_kind["errors"].items():
            cells = (", ".join(f"{x:.2g}" for x in errors[name]) for name in ("engine", "model", "gradient"))
            is_taken = "yes" if errors["is_taken"] else "refused"
            lines.append(
                f"| {kind} ({of_kind['native_dtype']}) | {dtype} | {' | '.join(cells)} | {is_taken} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure every kind of CPU, print the table and store it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.errors", description=__doc__)
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--tasks", type=int, default=12, help="real tasks for the gradient, 1 to 36")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--here", action="store_true", help="measure only this process and print JSON")
    given = parser.parse_args()
    if given.here:
        print(json.dumps(of_this_cpu(given.tasks)))
        return
    kinds = given.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown kinds {', '.join(sorted(unknown))}; choose among {', '.join(KINDS)}")
    found = {}
    for kind in kinds:
        command = [sys.executable, "-m", "benchmarks.errors", "--here", "--tasks", str(given.tasks)]
        done = subprocess.run(
            command, env={**os.environ, **KINDS[kind]}, check=True, stdout=subprocess.PIPE, text=True
        )
        found[kind] = json.loads(done.stdout.splitlines()[-1])
    print(table(found))
    keep(given.json, {"tasks": given.tasks, "rows": ROWS, "prompt length": LENGTH}, errors=found)


if __name__ == "__main__":
    main()
