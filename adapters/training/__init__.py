"""Training adapters on examples, with the base model checked to stay as it is.

:func:`train` does everything; the parts serve a Trainer of your own. The names stand in
``__init__.pyi`` and are imported on first use, so that the options of the command line stay light.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
