"""Running one notebook in a Jupyter kernel with papermill."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from iptkit.course import lessons
from iptkit.course.lessons import Lesson
from iptkit.storage import files, installation, paths

KERNEL = lessons.KERNEL["name"]
START_TIMEOUT = 180  # seconds for a kernel to start; a busy machine takes long
IOPUB_TIMEOUT = 120  # seconds for a cell's output to arrive after the cell is done
ERROR_LENGTH = 600  # characters of an error in a message; the notebook holds all of it
STOPPED = "stopped"  # the outcome of a notebook that was interrupted because another one failed


def check() -> None:
    """Make sure that notebooks can run here, before anything is computed.

    Raises: ImportError for a missing package, AttributeError for one without its files, ValueError for a
      missing or broken kernel.
    """
    import papermill
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    papermill.execute_notebook  # noqa: B018 - absent if the package's files were deleted but not its folder
    try:
        with paths.variables(JUPYTER_PREFER_ENV_PATH="1"):  # `pipeline` sets it for the notebooks, too
            python = KernelSpecManager().get_kernel_spec(KERNEL).argv[0]
    except (NoSuchKernel, IndexError) as error:
        raise ValueError(
            f"Jupyter has no kernel {KERNEL!r}, which runs the notebooks; the package ipykernel provides it: "
            f"{installation.command(*installation.of_course())}"
        ) from error
    if shutil.which(python) is None:
        raise ValueError(
            f"Jupyter's kernel {KERNEL!r} runs {python}, which does not exist (was it moved?); make the "
            "kernel again with: python -m ipykernel install --sys-prefix"
        )


def run(
    lesson: Lesson,
    target: Path,
    parameters: dict[str, Any],
    timeout_s: int | None,
    on_cell: Callable[[int, int], None],
) -> str:
    """Run a notebook to its end or to the first error.

    Args:
      lesson: the notebook.
      target: where the executed notebook is written after every cell.
      parameters: values for the cell tagged `parameters`.
      timeout_s: the longest that one cell may take in seconds; None for no limit.
      on_cell: called when a code cell begins, with its number and the number of all code cells.
    Returns: what went wrong, "" if nothing did.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.iorw import LocalHandler, papermill_io

    class Whole(LocalHandler):
        """Saves the notebook atomically, so that none is ever cut off."""

        def write(self, buf: str, path: str) -> None:
            with files.atomic(Path(path)) as draft:
                draft.write_text(buf, encoding="utf-8")

    papermill_io.register(str(target), Whole())
    for name in ("papermill", "asyncio"):  # errors are reported once, below
        logging.getLogger(name).setLevel(logging.CRITICAL)
    counts = {"begun": 0, "all": lesson.num_code_cells + 1}  # papermill adds a cell of parameters

    def on_cell_start(cell: Any, cell_index: int) -> None:
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
                shutdown_kernel="immediate",  # results are stored; a clean exit with gigabytes takes seconds
            )
    except papermill.PapermillExecutionError as error:
        reason = f"{error.ename}: {error.evalue}"
    except CellTimeoutError:
        reason = f"the cell took longer than {timeout_s} s; allow more with --cell-timeout"
    except DeadKernelError:
        reason = (
            "its Python process died, probably because memory ran out: close other programs or use a smaller "
            "--scale"
        )
    except RuntimeError as error:  # the kernel did not start, or did not answer
        reason = f"its Python process does not answer: {error}"
    else:
        return ""
    if len(reason) > ERROR_LENGTH:
        reason = f"{reason[:ERROR_LENGTH]} ..."
    where = f"code cell [{counts['begun']}]"
    return f"{lesson.path.name} failed in {where}: {reason}\nThe notebook up to this cell: {target}"
