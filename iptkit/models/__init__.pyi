from . import backbone, bundled, devices, tiny, weights
from .backbone import Backbone, load
from .devices import resolve_device

__all__ = [
    "Backbone",
    "backbone",
    "bundled",
    "devices",
    "load",
    "resolve_device",
    "tiny",
    "weights",
]
