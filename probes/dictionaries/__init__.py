"""Feature dictionaries (sparse autoencoders): load, train, use and measure them, with SAELens.

Use::

    from ed_interp.probes import dictionaries

    sae = dictionaries.train("icl-gpt2", site="blocks.2.hook_resid_post", out="SAE")
    sae = dictionaries.load("SAE")
    with sae.splice("icl-gpt2") as model:
        ...
    dictionaries.measure(sae).summary()
"""

from ed_interp.probes.dictionaries.description import FeatureDescriptions, describe
from ed_interp.probes.dictionaries.dictionary import Dictionary
from ed_interp.probes.dictionaries.emergence import FeatureEmergence, feature_emergence
from ed_interp.probes.dictionaries.interpretation import Interpretations, score_explanations
from ed_interp.probes.dictionaries.loading import from_dictionary_learning, load
from ed_interp.probes.dictionaries.measurement import DictionaryMeasurement
from ed_interp.probes.dictionaries.measuring import measure
from ed_interp.probes.dictionaries.text import text_source
from ed_interp.probes.dictionaries.training import train

__all__ = [
    "Dictionary",
    "DictionaryMeasurement",
    "FeatureDescriptions",
    "FeatureEmergence",
    "Interpretations",
    "describe",
    "feature_emergence",
    "from_dictionary_learning",
    "load",
    "measure",
    "score_explanations",
    "text_source",
    "train",
]
