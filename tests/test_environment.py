"""The three places that name the packages agree, and what is imported is named."""

import ast
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IMPORTED_AS = {
    "sklearn": "scikit-learn",
    "lazy_loader": "lazy-loader",
    "rouge_score": "rouge-score",
    "yaml": "pyyaml",
}
COMES_WITH = {
    "IPython": "ipykernel",
    "nbclient": "papermill",
    "huggingface_hub": "transformers",
    "pyarrow": "datasets",
    "bleach": "nbconvert",
    "bs4": "nbconvert",
    "jinja2": "nbconvert",
    "jupyter_client": "papermill",
    "packaging": "transformers",
}
PIN = re.compile(r"([A-Za-z0-9._-]+)==(\S+)")


def constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [PIN.fullmatch(line) for line in lines if line and not line.startswith("#")]
    assert all(pins), "every line of constraints.txt must be NAME==VERSION"
    return {pin[1]: pin[2] for pin in pins}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements):
    return {re.match(r"[A-Za-z0-9._-]+", requirement)[0] for requirement in requirements}


def test_environment_yml_has_the_same_pins_with_a_reason_each():
    lines = (ROOT / "environment.yml").read_text(encoding="utf-8").splitlines()
    entries = [line.strip() for line in lines if line.strip().startswith("- ") and "conda-forge" not in line]
    entries = [entry for entry in entries if entry != "- pip:"]
    assert all(re.search(r"  # \w.+", entry) for entry in entries), "every line needs a reason"
    assert dict(match.groups() for match in map(PIN.search, entries) if match) == constraints()


def test_every_direct_dependency_is_pinned_and_nothing_else():
    extras = project()["optional-dependencies"].values()
    assert names(project()["dependencies"]).union(*map(names, extras)) == set(constraints())


def test_torch_is_the_version_that_the_course_was_measured_with():
    assert constraints()["torch"] == "2.13.0"


@pytest.mark.parametrize(("name", "version"), sorted(constraints().items()))
def test_installed_versions_are_the_pinned_ones(name, version):
    is_extra = name in names(project()["optional-dependencies"]["cluster"])
    if is_extra and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed (extra `cluster`)")
    assert importlib.metadata.version(name).split("+")[0] == version


def test_what_is_imported_is_declared():
    declared = set(constraints()) | {"iptkit", "benchmarks", "pip"}  # pip: whichever installed the kit
    known = set(sys.stdlib_module_names) | {file.stem for file in ROOT.glob("tests/**/*.py")}
    undeclared = {}
    for path in [*ROOT.glob("iptkit/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py")]:
        for name in imported(path) - known:
            if COMES_WITH.get(name, IMPORTED_AS.get(name, name)) not in declared:
                undeclared[name] = path.name
    assert not undeclared


def imported(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_no_registry_or_machine_is_named_in_the_project():
    forbidden = re.compile("py" + r"pi\.org|files\.python" + r"hosted|/wo" + "rk/|conda\\.anaconda")
    patterns = (
        "*",
        ".ci/*",
        "iptkit/**/*.py",
        "tests/**/*.py",
        ".github/**/*.yml",
        "notebooks/*",
        "data/**/*.json",
    )
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    own = [path for path in files if path.is_file() and path.name != ".git"]  # a file in a git worktree
    texts = {path.name: path.read_text(encoding="utf-8") for path in own}
    assert not [name for name, text in texts.items() if forbidden.search(text)]
