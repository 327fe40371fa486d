"""Scores of prompts: metrics, confidence intervals, summaries of result rows, verdicts on claims."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
