"""What `from iptkit import ...` offers: every name of a stub loads, and every module stands in its stub."""

import importlib
import inspect
import os
import re
import subprocess
import sys

import pytest

from iptkit.storage import paths

FACES = sorted(paths.PACKAGE.rglob("__init__.pyi"))


def name_of(stub):
    return ".".join(("iptkit", *stub.parent.relative_to(paths.PACKAGE).parts))


@pytest.mark.parametrize("stub", FACES, ids=name_of)
def test_every_name_loads(stub):
    package = importlib.import_module(name_of(stub))
    assert package.__all__ and all(getattr(package, name) is not None for name in package.__all__)


@pytest.mark.parametrize("stub", FACES, ids=name_of)
def test_every_module_is_in_the_stub(stub):
    modules = {p.stem for p in stub.parent.glob("[!_]*.py")}
    packages = {p.parent.name for p in stub.parent.glob("*/__init__.py")}
    hidden = (modules | packages) - set(importlib.import_module(name_of(stub)).__all__)
    assert hidden <= {"engine", "study"}, "all but the two of which the class is public"


def test_importing_the_kit_is_light():
    program = "import sys, iptkit.methods, iptkit.studies; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_program_learns_which_package_is_missing(tmp_path):
    broken = "raise ModuleNotFoundError(\"No module named 'lazy_loader'\", name='lazy_loader')"
    (tmp_path / "lazy_loader.py").write_text(broken, encoding="utf-8")
    places = os.pathsep.join([str(tmp_path), str(paths.PACKAGE.parent)])
    command = [sys.executable, "-c", "import iptkit; from iptkit import Engine"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": places})
    assert done.returncode and "No module named 'lazy_loader'" in done.stderr.splitlines()[-1]


def callables(thing):
    """A function itself; of a class its constructor and public methods."""
    if inspect.isfunction(thing):
        return [thing]
    members = vars(thing).items() if inspect.isclass(thing) else ()
    return [f for name, f in members if inspect.isfunction(f) and (name[0] != "_" or name == "__init__")]


@pytest.mark.parametrize("stub", FACES, ids=name_of)
def test_a_path_may_be_a_string_everywhere(stub):
    package = importlib.import_module(name_of(stub))
    public = [getattr(package, name) for name in package.__all__]
    if name_of(stub) != "iptkit.course":  # the modules of `course` are those of commands
        public += [
            thing
            for module in filter(inspect.ismodule, tuple(public))
            for name, thing in vars(module).items()
            if name[0] != "_" and getattr(thing, "__module__", "") == module.__name__
        ]
    for function in (function for thing in public for function in callables(thing)):
        for parameter in inspect.signature(function).parameters.values():
            is_path = re.search(r"(?<![\[\w])Path\b", str(parameter.annotation))
            assert not is_path or "str" in str(parameter.annotation), f"{function.__qualname__}: {parameter}"
