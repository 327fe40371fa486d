"""The examples in docstrings are true, and every public thing says what it is."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import iptkit

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(iptkit.__path__, "iptkit.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_public_things_have_a_docstring(name):
    module = importlib.import_module(name)
    assert module.__doc__
    things = {key: thing for key, thing in vars(module).items() if not key.startswith("_")}
    own = {key: thing for key, thing in things.items() if getattr(thing, "__module__", None) == name}
    callables = {
        key: thing for key, thing in own.items() if inspect.isfunction(thing) or inspect.isclass(thing)
    }
    assert not [key for key, thing in callables.items() if not inspect.getdoc(thing)]
