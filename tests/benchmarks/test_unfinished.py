"""Finished steps of a study that is not finished yet: they are found again under today's names.

The test goes with the folder.
"""

import importlib.util
import json
import pkgutil
from pathlib import Path

import torch

from iptkit.storage import digests, revision, step_cache, tensor_files

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "unfinished"
MAKERS = json.loads((FOLDER / "code.json").read_text(encoding="utf-8"))


def test_the_code_that_makes_the_steps_is_the_code_that_was_compared():
    """If not: compare the steps of a small study, made by both codes, then write the new digests here."""
    found = {maker: revision.of(pkgutil.resolve_name(maker)) for maker in MAKERS}
    assert found == {maker: of["now"] for maker, of in MAKERS.items()}


def test_a_step_of_the_earlier_code_gets_the_name_that_is_looked_for(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("renew", FOLDER / "renew.py")
    spec.loader.exec_module(renew := importlib.util.module_from_spec(spec))
    maker, of = next(iter(MAKERS.items()))
    about = {"values": {"rows": []}, "seconds": 1.0, "config": ["x", 1], "made_with": {}}
    names = []
    for code in (of["made with"][0], "0" * 16):
        names.append(f"msf-5-{digests.digest([step_cache.STEP_FORMAT, code, about['config']])}")
        (tmp_path / names[-1]).mkdir()
        tensor_files.write(
            tmp_path / names[-1] / step_cache.DONE, {"a": torch.ones(1)}, {**about, "code": code}
        )
    assert renew.renew(tmp_path) == 1 and renew.renew(tmp_path) == 0
    monkeypatch.setattr(step_cache.revision, "of", lambda make: of["now"])
    found = step_cache.step("msf-5", ["x", 1], lambda checkpoint: 1 / 0, tmp_path)
    assert found.was_cached and found.folder not in names
