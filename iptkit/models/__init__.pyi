from . import backbone, bundled, devices, machine, tiny, weights
from .backbone import Backbone, load
from .devices import resolve_device

__all__ = [
    "Backbone",
    "backbone",
    "bundled",
    "devices",
    "load",
    "machine",
    "resolve_device",
    "tiny",
    "weights",
]
