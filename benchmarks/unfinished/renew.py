"""Give the unpacked steps the names that today's code looks for.

python benchmarks/unfinished/renew.py [STEPS]

A step's name holds a digest of the code that made it. `code.json` has, for each module that makes steps, the
digests that the archives' steps were made with, and today's. What changed in between does not concern these
steps: messages, progress bars, the readers of users' own files, names, unused code, settings of lessons,
DID behind a prompt, and the edges of prompts in float64 and of trainings without steps. Both codes made the
same steps of small studies, with folds, all controls, DID, fine-tuning and adapters, bit for bit. Each step
in STEPS (default: the step cache) is copied to its new name; its header keeps the digest of the code that
made it.
"""

from __future__ import annotations

import pkgutil
import shutil
import sys
from pathlib import Path

from iptkit.storage import digests, paths, reading, revision, step_cache, tensor_files

CODE = Path(__file__).with_name("code.json")


def renew(steps: Path) -> int:
    """Copy every step of an earlier code to its present name; return how many were copied."""
    known, count = reading.read_json(CODE), 0
    makers = {code: maker for maker, of in known.items() for code in of["made with"]}
    for file in sorted(steps.glob(f"*/{step_cache.DONE}")):
        _, about = tensor_files.read(file)
        made_with, config = about["code"], about["config"]
        name, _, key = file.parent.name.rpartition("-")
        if made_with not in makers or key != key_of(made_with, config):
            continue
        new = steps / f"{name}-{key_of(code_of(makers[made_with]), config)}"
        if not new.exists():
            shutil.copytree(file.parent, new)
            count += 1
    return count


def key_of(code: str, config: object) -> str:
    """The end of a step's name."""
    return digests.digest([step_cache.STEP_FORMAT, code, config])


def code_of(maker: str) -> str:
    """The digest of the code that a function runs today, by its name, such as package.module:Class.method."""
    return revision.of(pkgutil.resolve_name(maker))


if __name__ == "__main__":
    found = renew(Path(sys.argv[1]) if len(sys.argv) > 1 else paths.steps_dir())
    print(f"{found} steps have a new name")
