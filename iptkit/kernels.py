"""Runs one notebook with papermill in a Python of its own, and tells in words why it failed."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from iptkit import files, installation, lessons, paths
from iptkit.lessons import Lesson

KERNEL = lessons.KERNEL["name"]
START_TIMEOUT = 180  # seconds for a kernel to start; a busy machine takes long
IOPUB_TIMEOUT = 120  # seconds for a cell's output to arrive after the cell is done
ERROR_LENGTH = 600  # characters of an error that are told; the notebook holds it all


def check() -> None:
    """Make sure that notebooks can be run here, before anything is computed.

    Raises: ImportError for a package that is missing or broken, ValueError for a kernel that is.
    """
    import papermill
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    papermill.execute_notebook  # noqa: B018 - not there in a package of which only the folder is left
    try:
        with paths.variables(JUPYTER_PREFER_ENV_PATH="1"):  # as `pipeline` has it for the notebooks
            python = KernelSpecManager().get_kernel_spec(KERNEL).argv[0]
    except (NoSuchKernel, IndexError) as error:
        raise ValueError(
            f"Jupyter knows no kernel {KERNEL!r}, which runs the notebooks; the package ipykernel brings it: "
            f"{installation.command(*installation.of_course())}"
        ) from error
    if shutil.which(python) is None:
        raise ValueError(
            f"Jupyter's kernel {KERNEL!r} is to run with {python}, which is not there (was it moved?); "
            "make it anew with: python -m ipykernel install --sys-prefix"
        )


def run(
    lesson: Lesson, target: Path, parameters: dict, timeout_s: int | None, on_cell: Callable[[int, int], None]
) -> str:
    """Run a notebook from its first cell to its last or to an error.

    Args:
      lesson: the notebook.
      target: where the executed notebook is written, cell by cell.
      parameters: values for the cell tagged `parameters`.
      timeout_s: the longest that one cell may take in seconds; None for no limit.
      on_cell: called with the number of a code cell and the number of all when it begins.
    Returns: what went wrong, "" if nothing did.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.iorw import LocalHandler, papermill_io

    class Whole(LocalHandler):
        """Each save of the notebook takes the place of the last one when it is written: none is cut."""

        def write(self, buf, path):
            with files.atomic(Path(path)) as draft:
                draft.write_text(buf, encoding="utf-8")

    papermill_io.register(str(target), Whole())
    for name in ("papermill", "asyncio"):  # what fails is told once, below
        logging.getLogger(name).setLevel(logging.CRITICAL)
    counts = {"begun": 0, "all": lesson.num_code_cells + 1}  # papermill adds a cell of parameters

    def on_cell_start(cell, cell_index):
        if cell.cell_type == "code" and cell.source.strip():
            counts["begun"] += 1
            on_cell(counts["begun"], counts["all"])

    try:
        with files.room_for(target):
            papermill.execute_notebook(
                lessons.literal(lesson.path),
                lessons.literal(target),
                parameters,
                kernel_name=KERNEL,
                progress_bar=False,
                start_timeout=START_TIMEOUT,
                cwd=lesson.path.parent,
                execution_timeout=timeout_s,
                iopub_timeout=IOPUB_TIMEOUT,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
                on_cell_start=on_cell_start,
                shutdown_kernel="immediate",  # what it found is stored; taking down gigabytes takes seconds
            )
    except papermill.PapermillExecutionError as error:
        reason = f"{error.ename}: {error.evalue}"
    except CellTimeoutError:
        reason = f"the cell took longer than {timeout_s} s; allow more with --cell-timeout"
    except DeadKernelError:
        reason = (
            "its Python died, most likely for want of memory: close other programs or use a smaller --scale"
        )
    except RuntimeError as error:  # jupyter's kernel did not start, or did not answer
        reason = f"its Python does not answer: {error}"
    else:
        return ""
    if len(reason) > ERROR_LENGTH:
        reason = f"{reason[:ERROR_LENGTH]} ..."
    where = f"code cell [{counts['begun']}]"
    return f"{lesson.path.name} failed in {where}: {reason}\nThe notebook up to there: {target}"
