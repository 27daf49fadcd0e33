"""ed-interp: emergent dynamics, interpreted.

Probes read the residual stream, adapters write to it, eval compares with a frozen control.

The public names stand in ``__init__.pyi`` and are imported on first use, so that
``import ed_interp`` stays instant (it does not import torch).
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
