"""Bias injection: a PEFT tuner whose feedback nodes read the sequence and decay with time.

Importing this package registers the method with PEFT::

    from peft import get_peft_model
    from ed_interp.adapters.bias_injection import BiasInjectionConfig

    model = get_peft_model(model, BiasInjectionConfig(r=8, n_nodes=4))

Everything else is PEFT's: saving, loading, several adapters, merging (the static part; feedback
nodes stay live). Loading a checkpoint needs this import first, which its README says.

STABLE: the names below and the options of :class:`BiasInjectionConfig`.
"""

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import register_peft_method

from ed_interp.adapters.bias_injection.config import BIAS_INJECTION, NAME, BiasInjectionConfig
from ed_interp.adapters.bias_injection.layer import BiasInjectionLayer
from ed_interp.adapters.bias_injection.model import BiasInjectionModel

__all__ = ["BIAS_INJECTION", "BiasInjectionConfig", "BiasInjectionLayer", "BiasInjectionModel"]

if BIAS_INJECTION not in PEFT_TYPE_TO_TUNER_MAPPING:
    register_peft_method(
        name=NAME.lower(), config_cls=BiasInjectionConfig, model_cls=BiasInjectionModel
    )
