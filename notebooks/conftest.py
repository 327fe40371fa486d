"""How `pytest --nbval-lax notebooks` runs the notebooks: all of nbval's settings.

Cells tagged `nbval-check-output` must print what is stored in the notebook; all other
cells must only run.
"""

import os

CELL_TIMEOUT = 1800  # seconds
KERNEL_START_TIMEOUT = 180  # seconds; a busy machine takes long
NEVER_COMPARED = ("stderr", "image/png", "text/html")  # differ by machine, though right


def pytest_configure(config):
    config.option.nbval_current_env = True  # this Python, whatever a notebook names
    config.option.nbval_cell_timeout = CELL_TIMEOUT
    config.option.nbval_kernel_startup_timeout = KERNEL_START_TIMEOUT
    os.environ["IPTKIT_QUIET"] = "1"  # the notebooks' kernels inherit it
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def pytest_collectstart(collector):
    if collector.path.suffix == ".ipynb" and hasattr(collector, "skip_compare"):
        collector.skip_compare += NEVER_COMPARED
