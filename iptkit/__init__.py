"""iptkit: prompt methods on frozen language models, from words to five trained parameters per task.

`__init__.pyi` lists the names. Each loads when it is first used, so that `import iptkit` and `iptkit --help`
stay fast and do not import torch.
"""

import os
import time
import warnings

import lazy_loader

__version__ = "0.1.0"
STARTED = time.time()  # read by stamp: wall time since the import
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):  # oneDNN's, and that of torch's ideep
    # how many shapes of products are remembered; a batch needs a dozen, by default it is 1,024: two gigabytes
    os.environ.setdefault(_name, "128")  # read at the first product
warnings.filterwarnings("ignore", "IProgress not found")  # of tqdm.auto: our bars are text

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
