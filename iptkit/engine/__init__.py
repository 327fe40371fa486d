"""The engine: rows of many prompts in one forward of a frozen model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
