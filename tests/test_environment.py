"""The three places that name the packages agree, and what is imported is named."""

import ast
import contextlib
import importlib.metadata
import itertools
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import iptkit

ROOT = Path(__file__).resolve().parent.parent
IMPORTED_AS = {
    "axe_playwright_python": "axe-playwright-python",
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
    "pandas": "datasets",
    "bs4": "pydata-sphinx-theme",
    "docutils": "sphinx",
    "jupyter_client": "papermill",
    "packaging": "transformers",
}
PIN = re.compile(r"([A-Za-z0-9._-]+)==(\S+)")
POSIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
ACTION = re.compile(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [PIN.fullmatch(line) for line in lines if line and not line.startswith("#")]
    assert all(pins), "every line of constraints.txt must be NAME==VERSION"
    return {pin[1]: pin[2] for pin in pins}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def locked():
    """The pins of requirements.lock that hold here: name -> version."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    assert all(re.fullmatch("==[^,*]+", str(pin.specifier)) and not pin.url for pin in pins)
    assert len(here) == len({canonicalize_name(pin.name) for pin in here}), "two pins for one package"
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in here}


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


def test_the_lock_has_the_same_pins():
    pins = {canonicalize_name(name): version for name, version in constraints().items()}
    assert {name: locked().get(name) for name in pins} == pins
    assert not [name for name in locked() if name.startswith(("nvidia", "cuda", "triton"))]


def test_the_lock_has_every_package_that_another_one_needs():
    """A walk from the kit's requirements over those of the installed packages."""
    extras = project()["optional-dependencies"].values()
    todo = [(Requirement(line), "") for line in [*project()["dependencies"], *itertools.chain(*extras)]]
    seen, lock = set(), locked()
    while todo:
        needed, extra = todo.pop()
        if needed.marker is not None and not needed.marker.evaluate({"extra": extra}):
            continue
        for wish in {"", *needed.extras} - {extra for name, extra in seen if name == needed.name}:
            seen.add((needed.name, wish))
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # of an extra that is not here
                lines = importlib.metadata.requires(needed.name) or []
                todo += [(Requirement(line), wish) for line in lines]
    found = {canonicalize_name(name) for name, _ in seen}
    assert len(found) > 100
    assert not [name for name in found - set(lock) if not name.startswith(("nvidia", "cuda", "triton"))]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflows_pin_every_action_to_a_commit_and_get_few_rights(file):
    text = file.read_text(encoding="utf-8")
    used = re.findall(r"uses: *(.+)", text)
    assert used and all(ACTION.fullmatch(action) for action in used), used
    read = yaml.safe_load(text)
    assert read["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in read["jobs"].values())


def test_one_commit_stands_for_one_version_of_an_action():
    used = {use for file in WORKFLOWS for use in re.findall(r"uses: *(.+)", file.read_text(encoding="utf-8"))}
    assert len(used) == len({use.partition("@")[0] for use in used})


def test_the_version_is_described_and_can_be_cited():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == iptkit.__version__ and cited["license"] == project()["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", changes, re.MULTILINE)[0] == iptkit.__version__


def test_torch_is_the_version_that_the_course_was_measured_with():
    assert constraints()["torch"] == "2.13.0"


@pytest.mark.parametrize(("name", "version"), sorted(constraints().items()))
def test_installed_versions_are_the_pinned_ones(name, version):
    extras = project()["optional-dependencies"]
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name in names([*extras["cluster"], *extras["grading"]]):
            pytest.skip(f"{name} is not installed (extra `cluster` or `grading`)")
        raise
    assert installed.split("+")[0] == version


def test_what_is_imported_is_declared():
    declared = set(constraints()) | {"iptkit", "benchmarks", "pip"}  # pip: whichever installed the kit
    known = set(sys.stdlib_module_names) | {file.stem for file in ROOT.glob("tests/**/*.py")}
    undeclared = {}
    for path in [*ROOT.glob("iptkit/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py")]:
        for name in imported(ast.parse(path.read_text(encoding="utf-8"))) - known:
            if COMES_WITH.get(name, IMPORTED_AS.get(name, name)) not in declared:
                undeclared[name] = path.name
    assert not undeclared


def test_no_module_needs_another_system_when_it_is_imported():
    """What only POSIX systems have is imported behind a check of the system."""
    for path in ROOT.glob("iptkit/**/*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            is_import = isinstance(node, ast.Import | ast.ImportFrom)
            assert not is_import or not POSIX_ONLY & imported(node), f"{path}:{node.lineno}"


def imported(tree):
    found = set()
    for node in ast.walk(tree):
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
