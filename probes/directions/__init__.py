"""Steering directions: how they are found, and whether they will work, before they are applied.

::

    from ed_interp import directions

    contrast = directions.Contrast.from_file("pairs.jsonl")
    directions.preflight("icl-gpt2", contrast).verdict
    directions.find_direction("icl-gpt2", contrast).save("D.safetensors")
"""

import lazy_loader

# By the stub beside this file, on first use: options are read for --help, without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
