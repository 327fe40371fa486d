from . import backbone, bundled, devices, hub_names, machine, tiny, weights
from .backbone import Backbone, fingerprint, in_float32, load
from .devices import resolve_device

__all__ = [
    "Backbone",
    "backbone",
    "bundled",
    "devices",
    "fingerprint",
    "hub_names",
    "in_float32",
    "load",
    "machine",
    "resolve_device",
    "tiny",
    "weights",
]
