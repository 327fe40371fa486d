"""Every notebook of the course at smoke scale on a pretended GPU, its code cells one after the other."""

from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PARAMETER = 'device: str = "cpu"'
OTHER_GPU = ("06", "08")  # once more on cuda:1; those with transformers' Trainer take the first GPU only
PLAN = [(path, "cuda") for path in NOTEBOOKS]
PLAN += [(path, "cuda:1") for path in NOTEBOOKS if path.name[:2] in OTHER_GPU]


def code_of(path, device):
    """The code cells of a notebook, with another device in the cell of parameters."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    first, *others = cells
    assert PARAMETER in first, f"{path.name}: the first code cell has no {PARAMETER}"
    return [first.replace(PARAMETER, f'device: str = "{device}"'), *others]


@pytest.mark.parametrize(("path", "device"), PLAN, ids=[f"{path.stem[:2]}-{device}" for path, device in PLAN])
def test_a_notebook_runs(path, device, monkeypatch):
    import matplotlib

    matplotlib.use("agg")
    monkeypatch.setenv("IPTKIT_SCALE", "smoke")
    monkeypatch.chdir(path.parent)
    names = {"__name__": "__main__", "display": lambda *_, **__: None}
    for number, source in enumerate(code_of(path, device), 1):
        exec(compile(source, f"{path.name}, code cell [{number}]", "exec"), names)
    assert str(names["device"]) == device
    matplotlib.pyplot.close("all")


def test_all_notebooks_are_there():
    assert len(NOTEBOOKS) == 11
