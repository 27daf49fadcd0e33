"""The model card: what a stranger needs to use an adapter, and to judge it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from ed_interp.adapters.training.methods import IMPORTS


@dataclasses.dataclass(frozen=True)
class CardFields:
    """What only the person who trains can say; None is printed as not stated."""

    licence: str | None = None
    """Of the adapter, as an SPDX identifier or a hub licence name."""
    data_licence: str | None = None
    """Of the data it was trained on."""
    base_licence: str | None = None
    """Of the base model."""
    description: str | None = None
    """What the adapter is for."""


_UNKNOWN = "not stated"


def model_card(record: dict[str, Any], fields: CardFields) -> str:
    """The README.md of a trained adapter, from its record."""
    method, base = record["method"], record["model"]["name"]
    module = IMPORTS.get(method)
    tags = ["peft", "ed-interp", method]
    head = {
        "base_model": base,
        "library_name": "peft",
        "license": fields.licence or "unknown",
        "pipeline_tag": "text-generation",
        "tags": tags,
    }
    # JSON is YAML, and quotes whatever a licence or a model may be called.
    front = "\n".join(f"{name}: {json.dumps(value)}" for name, value in head.items())
    need = (
        f"PEFT knows this method once `{module}` is imported (`pip install ed-interp`); without "
        "the import it raises a `KeyError`."
        if module
        else "PEFT loads it without ed-interp."
    )
    name = record["name"]
    lines = [f"import {module}  # registers the method with PEFT"] if module else []
    lines += ["import ed_interp", "", f'hooked = ed_interp.load("{name}")  # this folder']
    lines += ["", "# or, with a base model of your own:", "from peft import PeftModel", ""]
    lines += [f'model = PeftModel.from_pretrained(base, "{name}")']
    data, counts = record["data"], record["parameters"]
    held = _UNKNOWN if record["eval_loss"] is None else f"{record['eval_loss']:.4f} nats a token"
    if record["eval_loss"] is None:
        held = "nothing was held out"
    table = {
        "method": method,
        "base model": f"{base} (fingerprint {record['model']['fingerprint']})",
        "trained parameters": f"{counts['trained']:,} of {counts['all']:,}",
        "data": f"{data['name']}, {data['training']} training and {data['held_out']} held-out "
        "examples",
        "data hash (SHA-256)": data["sha256"],
        "steps": f"{record['steps']}, {record['stopped']}",
        "training loss": f"{record['loss']:.4f} nats a token",
        "held-out loss": held,
        "seed": record["training"]["seed"],
        "licence of the adapter": fields.licence or _UNKNOWN,
        "licence of the data": fields.data_licence or _UNKNOWN,
        "licence of the base model": fields.base_licence or _UNKNOWN,
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in table.items())
    versions = ", ".join(
        f"{name} {version}"
        for name, version in record["environment"]["versions"].items()
        if version is not None
    )
    config = json.dumps(record["adapter"], indent=2)
    settings = json.dumps(record["training"], indent=2)
    code = "\n".join(lines)
    about = fields.description or f"A {method} adapter of {base}, trained with ed-interp."
    return f"""---
{front}
---

# {record["name"]}

{about}

{need}

```python
{code}
```

| | |
|---|---|
{rows}

Only the adapter's weights trained: every weight of the base model had the same SHA-256 before and
after.

## Adapter

```json
{config}
```

## Training

```json
{settings}
```

Trained with {versions}.
"""
