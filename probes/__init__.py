"""Probes read the residual stream and return a result; they never write to the model."""

import pkgutil

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=[room.name for room in pkgutil.iter_modules(__path__)]
)
