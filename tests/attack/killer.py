"""Kill -9 a study at a chosen moment, resume it with the same command, and compare the rows.

A moment is a system event in the folders of the study (a file is opened, renamed or removed, or a folder is
made) or a training step. Moments are counted, so a seed chooses the same moments on every machine and under
any load. Each study runs in a fork of one process that has imported everything, because that is fast.

    python tests/attack/killer.py FOLDER --kills 100 --flips 20 --seed 1

prints what happened, one JSON object per line. `attack` does the same from Python.
"""

import argparse
import contextlib
import functools
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


@dataclass
class Moments:
    """Counts the moments of this process in some folders, and kills the process at moment number `at`."""

    folders: tuple[str, ...]
    at: int | None = None
    count: int = 0

    def watch(self) -> None:
        """Count from now on until the process ends."""
        sys.addaudithook(self._audit)

    def pass_one(self) -> None:
        """Count one moment."""
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _audit(self, event, given):
        if event in EVENTS and given and isinstance(given[0], str | os.PathLike):
            if os.fspath(given[0]).startswith(self.folders):
                self.pass_one()


@dataclass
class Ended:
    """How a child process ended: its signal (0 for none), moments, warnings and error."""

    signal: int
    moments: int = 0
    warnings: list[str] = field(default_factory=list)
    error: str = ""


def in_child(work: Callable[[Moments], None], folders: tuple[str, ...], at: int | None = None) -> Ended:
    """Run `work` in a fork of this process, which is killed at moment `at`, and return how it ended."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        said = Ended(0)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            try:
                with warnings.catch_warnings(record=True) as told:
                    warnings.simplefilter("always", UserWarning)
                    moments = Moments(folders, at)
                    moments.watch()
                    work(moments)
                said.moments = moments.count
                said.warnings = [str(warning.message) for warning in told]
            except BaseException:
                said.error = traceback.format_exc()
        os.write(write, json.dumps(vars(said)).encode()[:60_000])
        os._exit(0)
    os.close(write)
    with open(read, "rb") as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    return Ended(**json.loads(text)) if os.WIFEXITED(status) else Ended(os.WTERMSIG(status))


def flip(file: Path, rng: random.Random) -> None:
    """Change one bit of a file."""
    data = bytearray(file.read_bytes())
    place = rng.randrange(8 * len(data))
    data[place // 8] ^= 1 << place % 8
    file.write_bytes(data)


class SmallStudy:
    """`iptkit study` with hand-written tasks, the tiny model and a checkpoint after every training step."""

    def __init__(self) -> None:
        from iptkit.course import pipeline
        from iptkit.models import backbone, devices
        from iptkit.studies import adapters, scales, study, unseen
        from iptkit.training import trainer
        from iptkit.training.runs import FitConfig

        assert pipeline and backbone.load("tiny-causal").model  # everything is imported before the first fork
        importlib.import_module("rouge_score.rouge_scorer")
        fit = FitConfig(steps=3, rows_per_run=1, evaluations=1, dev_examples=2, lr=0.1)
        scale = scales.load(
            "smoke", seeds=(0,), dims=(2,), main_dim=2, test_examples=2, prompt=fit, msf=fit, ist=fit,
            controls=(), nearest=True, stage_two_runs=1,
        )  # fmt: skip
        scales.variant = lambda *_, **__: scale
        devices.matmul_speed = lambda *_, **__: 1.0
        always = functools.partial(trainer.fit, checkpoint_seconds=-1.0)
        for module in (study, unseen, adapters):
            module.fit = always

        from iptkit.training import trainer

        trainer.fit = always
        self._train_step = trainer.train_step

    def run(self, folder: Path, at: int | None = None) -> Ended:
        """Run the command with its steps and rows in a folder, and return how it ended."""

        def work(moments: Moments) -> None:
            from iptkit.course import pipeline
            from iptkit.training import trainer

            def step(*given):
                moments.pass_one()
                return self._train_step(*given)

            trainer.train_step = step
            os.environ |= {"IPTKIT_STEPS": str(folder / "steps"), "IPTKIT_RESULTS": str(folder / "results")}
            pipeline.study("smoke", folder / "out" / "rows.jsonl", "cpu")

        return in_child(work, (str(folder),), at)


def made(folder: Path) -> dict[str, object]:
    """Return the results of a study: its rows and the tensors next to them."""
    from iptkit.storage import result_files, tensor_files

    rows = result_files.read(folder / "out" / "rows.jsonl")
    found = {"rows.jsonl": [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]}
    for file in (folder / "out").glob("*.safetensors"):
        tensors, _ = tensor_files.read(file)
        found[file.name] = {name: tensor.tolist() for name, tensor in tensors.items()}
    return found


def left_behind(folder: Path) -> list[str]:
    """Return the files that a finished study should not leave."""
    known = {"lock", "begun", "step.safetensors"}
    steps = [
        f for f in (folder / "steps").glob("*/*") if f.name not in known and not f.name.endswith(".damaged")
    ]
    return [*map(str, steps), *(str(f) for f in (folder / "out").glob(".*"))]


def attack(folder: Path, kills: int, flips: int, seed: int) -> Iterator[dict]:
    """Kill studies, flip bits in what they stored, and yield what happened each time.

    A study is killed once or twice, and a checkpoint that it left may be damaged, too. Then the same command
    resumes it.

    Yields: {"kind", "moments" (of each kill, or the flipped file), "problem" ("" if none)}.
    """
    rng, study, whole = random.Random(seed), SmallStudy(), folder / "whole"
    first = study.run(whole)
    if first.error:
        raise RuntimeError(first.error)
    expected = made(whole)
    yield {"kind": "undisturbed", "moments": first.moments, "problem": _wrong(first, whole, expected)}
    for number in range(kills):
        place, moments = folder / f"kill-{number}", []
        for _ in range(rng.choice((1, 1, 2))):
            moments.append(rng.randint(1, first.moments))
            ended = study.run(place, moments[-1])
            if ended.signal == 0:  # resumed, it had less to do and finished
                break
        checkpoints = [*(place / "steps").glob("*/*checkpoint.safetensors")]
        if checkpoints and rng.random() < 0.3:
            flip(rng.choice(checkpoints), rng)
            moments.append("checkpoint flipped")
        problem = _wrong(study.run(place), place, expected)
        yield {"kind": "kill", "moments": moments, "problem": problem}
        if not problem:
            shutil.rmtree(place)
    for _ in range(flips):
        file = rng.choice(sorted(whole.glob("steps/*/step.safetensors")))
        before = file.read_bytes()
        flip(file, rng)
        (whole / "out" / "rows.jsonl").unlink()
        ended = study.run(whole)
        problem = _wrong(ended, whole, expected)
        is_told = any(str(file) in text for text in ended.warnings)
        if not problem and not is_told and file.read_bytes() != before:
            problem = "a changed file was used without a warning" if _holds(before, file) else ""
        yield {"kind": "flip", "moments": [file.parent.name], "problem": problem}


def attack_apart(folder: Path, kills: int, flips: int, seed: int) -> list[dict]:
    """Return what `attack` yields, run in a separate process because it forks and changes modules.

    Raises: RuntimeError if that process fails.
    """
    own = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "IPTKIT_QUIET": "1"}
    kept = {name: v for name, v in os.environ.items() if name not in ("IPTKIT_SCALE", "IPTKIT_STATUS")}
    command = [sys.executable, __file__, str(folder / "studies")]
    command += ["--kills", str(kills), "--flips", str(flips), "--seed", str(seed)]
    env = {**kept, **own, "TMPDIR": str(folder)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _holds(before: bytes, file: Path) -> bool:
    """Return whether the changed bit matters. (Spaces that pad the header do not.)"""
    return any(a != b and a != ord(" ") for a, b in zip(before, file.read_bytes(), strict=True))


def _wrong(ended: Ended, folder: Path, expected: dict[str, object]) -> str:
    if ended.signal or ended.error:
        return ended.error or f"signal {ended.signal}"
    found = made(folder)
    differ = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    left = left_behind(folder)
    return "; ".join([*(f"{name} differs" for name in differ), *(f"left behind: {name}" for name in left)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    for name, default in (("--kills", 16), ("--flips", 4), ("--seed", 0)):
        parser.add_argument(name, type=int, default=default)
    wished = parser.parse_args()
    for happened in attack(wished.folder, wished.kills, wished.flips, wished.seed):
        print(json.dumps(happened), flush=True)
