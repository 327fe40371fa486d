"""The course: command line, pipeline of notebooks, web pages, checks, plots."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
