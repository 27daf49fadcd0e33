"""The README of a dictionary's folder: what it is, and how to load it with and without us."""

from __future__ import annotations

from typing import Any

_SPIKE_SLAB = """
This architecture is not SAELens's own. Import the module that registers it first; without that
SAELens fails with `KeyError: 'spike_slab'`:

```python
import ed_interp.probes.dictionaries.spike_slab  # registers the architecture
from sae_lens import SAE

sae = SAE.load_from_disk("FOLDER")
sae.encode(states)      # expected value; 0 where presence is at most the threshold
sae.presence(states)    # probability of being present, per latent
sae.sample(states, samples=8)
```
"""

_PLAIN = """
```python
from sae_lens import SAE

sae = SAE.load_from_disk("FOLDER")
```
"""


def readme_of(described: dict[str, Any]) -> str:
    """Markdown for a dictionary that :meth:`Dictionary.describe` tells about."""
    trained_as = described["trained_as"] or described["architecture"]
    own = described["architecture"] == "spike_slab"
    return (
        f"# Features of {described['model'] or 'a model'} at {described['site'] or 'no known site'}"
        f"\n\n{described['latents']} latents of {described['width']} channels, {trained_as}.\n\n"
        "With ed-interp:\n\n```python\nfrom ed_interp.probes import dictionaries\n\n"
        'dictionary = dictionaries.load("FOLDER")\n```\n\nWith SAELens alone:\n'
        f"{_SPIKE_SLAB if own else _PLAIN}\n"
        "`cfg.json` and `sae_weights.safetensors` are SAELens's; `run.json` says how it was made.\n"
    )
