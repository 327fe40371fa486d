"""What notebooks and commands use: the command line, the pipeline, the report, plots."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
