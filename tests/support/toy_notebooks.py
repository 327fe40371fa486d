"""Small notebooks for the tests of the pipeline and of the notebooks' structure."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
PARAMETERS = 'scale: str = "lesson"  # smoke, lesson or paper\nseed: int = 0\ndevice: str = "cpu"'


def code(source: str, *tags: str, count: int | None = None, outputs: list | None = None):
    """Make a code cell."""
    metadata = {"tags": list(tags)} if tags else {}
    return new_code_cell(source, metadata=metadata, execution_count=count, outputs=outputs or [])


def text(source: str):
    """Make a text cell."""
    return new_markdown_cell(source)


def printed(words: str, name: str = "stdout"):
    """Make what a cell printed."""
    return new_output("stream", name=name, text=words)


def write(path: Path, heading: str, *cells, parameters: str = PARAMETERS) -> Path:
    """Write a notebook with a heading, a cell of parameters and the given cells."""
    notebook = new_notebook(metadata={"kernelspec": KERNEL})
    notebook.cells = [text(heading), code(parameters, "parameters"), *cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path
