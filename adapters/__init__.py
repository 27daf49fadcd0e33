"""Adapters write to the residual stream; what they change is kept, undone or exported."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["bias_injection", "steering", "training"]
)
