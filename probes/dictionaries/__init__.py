"""Feature dictionaries (sparse autoencoders): load, train, use and measure them, with SAELens.

Use::

    from ed_interp.probes import dictionaries

    sae = dictionaries.train("icl-gpt2", site="blocks.2.hook_resid_post", out="SAE")
    sae = dictionaries.load("SAE")
    with sae.splice("icl-gpt2") as model:
        ...
    dictionaries.measure(sae).summary()

Names are imported on first use, so that the command line can read the options without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
