"""Every engine has the methods of the base class, with the same arguments."""

import inspect

import pytest

from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.interface import PromptEngine
from iptkit.engine.mask_engine import MaskEngine

METHODS = sorted(PromptEngine.__abstractmethods__)


@pytest.mark.parametrize("engine", [Engine, HeadEngine, MaskEngine])
def test_an_engine_takes_what_the_base_class_says(engine):
    assert not engine.__abstractmethods__
    for method in METHODS:
        wanted, found = (
            [(p.name, p.default) for p in inspect.signature(getattr(of, method)).parameters.values()]
            for of in (PromptEngine, engine)
        )
        assert found == wanted, method
        assert getattr(engine, method).__doc__, method


def test_a_missing_method_is_reported():
    with pytest.raises(TypeError, match="abstract method.* '?greedy"):
        type("Half", (Engine,), {"greedy": PromptEngine.greedy})()
