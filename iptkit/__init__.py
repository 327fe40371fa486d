"""iptkit: prompt methods on frozen language models, from words to five numbers per task.

Submodules load when first named (`iptkit.tasks`, `from iptkit import prompts`), so that `import iptkit`
and `iptkit --help` stay fast and do not import torch.
"""

import importlib
import importlib.util
import os
import pkgutil
import time
import warnings

__version__ = "0.1.0"
STARTED = time.time()  # read by stamp: wall time since the import
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # oneDNN's, and that of torch's ideep
    # how many shapes of products are remembered; a batch needs a dozen, by default it is 1,024: two gigabytes
    os.environ.setdefault(_name, "128")  # read at the first product
warnings.filterwarnings("ignore", "IProgress not found")  # of tqdm.auto: our bars are text


def __getattr__(name: str):
    if name.startswith("_") or importlib.util.find_spec(f"{__name__}.{name}") is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *(module.name for module in pkgutil.iter_modules(__path__))})
