"""The model card: what a stranger needs to use an adapter, and to judge it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ed_interp.adapters.training.methods import IMPORTS

# Jinja leaves values as they are: what a person wrote is Markdown already.
_TEMPLATE = """---
{{ card_data }}
---

# {{ name }}

{{ about }}

{% if module -%}
PEFT knows this method once `{{ module }}` is imported (`pip install ed-interp`); without the import
it raises a `KeyError`.
{%- else -%}
PEFT loads it without ed-interp.
{%- endif %}

```python
{% if module %}import {{ module }}  # registers the method with PEFT
{% endif %}import ed_interp

hooked = ed_interp.load("{{ name }}")  # this folder

# or, with a base model of your own:
from peft import PeftModel

model = PeftModel.from_pretrained(base, "{{ name }}")
```

| | |
|---|---|
{% for name, value in facts.items() -%}
| {{ name }} | {{ value }} |
{% endfor %}
Only the adapter's weights trained: every weight of the base model had the same SHA-256 before and
after.

## Adapter

```json
{{ adapter }}
```

## Training

```json
{{ training }}
```

Trained with {{ versions }}.
"""


def model_card(record: Mapping[str, Any]) -> str:
    """The README.md of a trained adapter, from what ``training.json`` holds."""
    method, model, fields = record["method"], record["model"], record["card"]
    data, counts, held = record["data"], record["parameters"], record["eval_loss"]
    versions = record["environment"]["versions"]
    facts = {
        "method": method,
        "base model": f"{model['name']} (fingerprint {model['fingerprint']})",
        "trained parameters": f"{counts['trained']:,} of {counts['all']:,}",
        "data": f"{data['name']}, {data['training']} training and {data['held_out']} held-out "
        "examples",
        "data hash (SHA-256)": data["sha256"],
        "steps": f"{record['steps']}, {record['stopped']}",
        "training loss": f"{record['loss']:.4f} nats per token",
        "held-out loss": "nothing was held out" if held is None else f"{held:.4f} nats per token",
        "seed": record["training"]["seed"],
        "licence of the adapter": fields["licence"] or "not stated",
        "licence of the data": fields["data_licence"] or "not stated",
        "licence of the base model": fields["base_licence"] or "not stated",
    }
    head = ModelCardData(
        base_model=model["name"],
        library_name="peft",
        license=fields["licence"] or "unknown",
        pipeline_tag="text-generation",
        tags=["peft", "ed-interp", method],
    )
    about = f"A {method} adapter of {model['name']}, trained with ed-interp."
    card = ModelCard.from_template(
        head,
        template_str=_TEMPLATE,
        name=record["name"],
        about=fields["description"] or about,
        module=IMPORTS.get(method),
        facts=facts,
        adapter=json.dumps(record["adapter"], indent=2),
        training=json.dumps(record["training"], indent=2),
        versions=", ".join(f"{name} {version}" for name, version in versions.items() if version),
    )
    return f"{card}\n"
