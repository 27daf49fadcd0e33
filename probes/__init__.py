"""Probes read the residual stream and return a result; they never write to the model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["dictionaries", "directions", "emergence"]
)
