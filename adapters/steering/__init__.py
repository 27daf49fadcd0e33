"""Steering: a direction applied, kept, and passed to other tools.

::

    treated = steer(model, direction, coefficient=4.0)       # a model like any other
    treated.generate(...)
    to_gguf(direction, "mood.gguf")                          # repeng, llama.cpp
    lm_eval.simple_evaluate(model=harness_model(treated), tasks=[...])

A direction itself is saved with ``Direction.save`` (safetensors). Cost: that of
:mod:`ed_interp.streams.injection`; the libraries for other formats are imported where used and are
an extra: ``pip install 'ed-interp[steering]'``.

Conventions of the peers that differ from ours:

- repeng reads the last block's state after the final norm and writes before it; here every site is
  before it. It leaves padding out only when position ids are passed (and with transformers 5 fails
  on a plain forward pass over several rows); here always. It acts on the prompt and on generated
  tokens alike; here too, unless ``where`` says otherwise. Its coefficient is one for the batch.
- llama.cpp takes files of the same form, without a vector for block 0.
- steering-vectors counts ``min_token_index`` and ``token_indices`` in each chunk that is fed, so
  under the key-value cache they miss what is generated; here positions are those of the sequence.
  It saves pickles, which are not read.
- pyvene's ``AdditionIntervention`` at a block's output adds at every position of a plain forward
  pass, as we do; its ``generate`` was not compared.
"""

from ed_interp.adapters.steering.formats import (
    from_gguf,
    from_steering_vectors,
    save_adapter,
    to_gguf,
)
from ed_interp.adapters.steering.harness import harness_model
from ed_interp.adapters.steering.steered import SteeredModel, steer

__all__ = [
    "SteeredModel",
    "from_gguf",
    "from_steering_vectors",
    "harness_model",
    "save_adapter",
    "steer",
    "to_gguf",
]
