"""Prompts of your own: tune, save, load and ask them, and exchange them with PEFT and model hubs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
