"""Tests on two pretended GPUs. They run by themselves: torch must not be imported before (README.md)."""

import os
import sys
from pathlib import Path

import pretend
import pytest

REASON = pretend.why_not()
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))  # stock.py and others


def pytest_configure(config):
    folder = Path(config.cache.mkdir("pretend_cuda"))
    is_worker = hasattr(config, "workerinput")
    if REASON:
        return
    if is_worker or not config.getoption("numprocesses", None):
        pretend.install(folder)
    else:
        pretend.build(folder)  # once, before the workers start


def pytest_collection_modifyitems(items):
    if REASON:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=REASON))


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that all workers have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(autouse=True)
def folders(shared, monkeypatch):
    """Finished steps and verdicts, apart from the reader's own; notebooks share their steps."""
    monkeypatch.setenv("IPTKIT_STEPS", str(shared / "steps"))
    monkeypatch.setenv("IPTKIT_RESULTS", str(shared / "results"))
