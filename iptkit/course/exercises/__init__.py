"""Exercises that check the learner: `exercises.check_NN_K(answer)` for exercise K of lesson NN."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
