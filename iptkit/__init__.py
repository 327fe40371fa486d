"""iptkit: prompt methods on frozen language models, from words to five trained parameters per task.

`__init__.pyi` lists the names. Each loads when it is first used, so that `import iptkit` and `iptkit --help`
stay fast and do not import torch.
"""

import os
import time
import warnings

__version__ = "0.2.0"
STARTED = time.time()  # `course.stamp` prints the time since the import
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # of oneDNN and of torch's ideep
    # how many shapes of matrix products are cached; a batch needs a dozen, the default of 1,024 takes 2 GB
    os.environ.setdefault(_name, "128")  # read at the first matrix product
warnings.filterwarnings("ignore", "IProgress not found")  # from tqdm.auto; the kit's bars are text

try:
    import lazy_loader
except ModuleNotFoundError as error:
    _missing = error  # the command `iptkit` says it in a sentence (see `__main__`)

    def __getattr__(name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        raise _missing
else:
    __getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
