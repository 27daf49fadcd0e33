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

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ed_interp.probes.dictionaries.description.describing import describe as describe
    from ed_interp.probes.dictionaries.description.descriptions import (
        FeatureDescriptions as FeatureDescriptions,
    )
    from ed_interp.probes.dictionaries.dictionary import Dictionary as Dictionary
    from ed_interp.probes.dictionaries.emergence.following import (
        feature_emergence as feature_emergence,
    )
    from ed_interp.probes.dictionaries.emergence.result import FeatureEmergence as FeatureEmergence
    from ed_interp.probes.dictionaries.interpretation.result import (
        Interpretations as Interpretations,
    )
    from ed_interp.probes.dictionaries.interpretation.scoring import (
        score_explanations as score_explanations,
    )
    from ed_interp.probes.dictionaries.loading import (
        from_dictionary_learning as from_dictionary_learning,
    )
    from ed_interp.probes.dictionaries.loading import load as load
    from ed_interp.probes.dictionaries.measurement import (
        DictionaryMeasurement as DictionaryMeasurement,
    )
    from ed_interp.probes.dictionaries.measuring import measure as measure
    from ed_interp.probes.dictionaries.text import text_source as text_source
    from ed_interp.probes.dictionaries.training import train as train

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "description.describing": ["describe"],
        "description.descriptions": ["FeatureDescriptions"],
        "dictionary": ["Dictionary"],
        "emergence.following": ["feature_emergence"],
        "emergence.result": ["FeatureEmergence"],
        "interpretation.result": ["Interpretations"],
        "interpretation.scoring": ["score_explanations"],
        "loading": ["from_dictionary_learning", "load"],
        "measurement": ["DictionaryMeasurement"],
        "measuring": ["measure"],
        "text": ["text_source"],
        "training": ["train"],
    },
)
