"""Studies: their steps and jobs, the lessons' measurements, and verdicts on the papers' claims."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
