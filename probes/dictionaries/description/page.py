"""The page of features: one HTML file that opens offline.

Numbers travel as base64 of typed arrays, which keeps 16,000 features at a few megabytes and lets a
browser open them at once; a feature becomes HTML when it is looked at. The page carries a rule
that forbids the browser to load anything. Cost: about a second for 16,000 features.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ed_interp.probes.dictionaries.description.contexts import BEFORE, BIN_EDGES, NO_TOKEN, Columns

_NONE = 0xFFFFFFFF
_TOKENS = ("promoted", "suppressed", "clamp_tokens")
_NUMBERS = ("mean", "largest", "norm", "score", "control", "clamp_nats", "cosine")
_GAINS = ("promoted_by", "suppressed_by", "clamp_by")
_KINDS = {
    **dict.fromkeys(("fired", "nearest", *_TOKENS), "uint32"),
    **dict.fromkeys((*_NUMBERS, *_GAINS), "float32"),
}
"""Columns that travel as they are; some may be missing."""


def page_data(
    tokens: int, columns: Columns, names: Sequence[str | None], token_texts: Sequence[str]
) -> Markup:
    """What the page's script reads; see ``FeatureDescriptions`` for the fields."""
    histogram = columns["histogram"]
    used = np.flatnonzero(histogram.sum(0))
    # Only the bins in which any latent has a count.
    low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, len(BIN_EDGES) - 1)
    # A context is shaded relative to its feature's strongest activation.
    largest = np.maximum(columns["largest"], 1e-12)[:, None, None]
    shade = np.round(columns["context_values"].astype(np.float32) / largest * 255)
    # Two bytes per token of a context suffice for most vocabularies, and contexts are most of it.
    few = len(token_texts) < 0xFFFF
    ids = np.where(columns["context_ids"] == NO_TOKEN, _NONE, columns["context_ids"])
    data: dict[str, Any] = {
        "tokens": tokens,
        "latents": len(names),
        "before": BEFORE,
        "width": columns["context_ids"].shape[2],
        "contexts": columns["context_ids"].shape[1],
        # Once: everywhere else a token is its id.
        "texts": list(token_texts),
        "names": list(names),
        "edges": [float(edge) for edge in BIN_EDGES[low : high + 1]],
        "context_ids": _packed(ids & 0xFFFF, "uint16") if few else _packed(ids, "uint32"),
        "shade": _packed(np.clip(shade, 0, 255), "uint8"),
        "histogram": _packed(histogram[:, low:high], "uint32"),
        **{n: _packed(columns[n], kind) for n, kind in _KINDS.items() if n in columns},
        "neighbours": columns["nearest"].shape[1],
    }
    # The lists of tokens are of one length; some may be missing.
    tops = [columns[name].shape[1] for name in _TOKENS if name in columns]
    text = json.dumps(data | {"top": max(tops, default=0)}, ensure_ascii=False, allow_nan=False)
    # A token's text may be anything, such as the tag that would end this script element.
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _packed(array: NDArray[Any], kind: str) -> dict[str, str]:
    """A typed array in base64."""
    # Little-endian, whatever this machine is: the script reads it as it is on every browser's.
    raw = np.ascontiguousarray(array, dtype=np.dtype(kind).newbyteorder("<")).tobytes()
    return {"kind": kind, "data": base64.b64encode(raw).decode("ascii")}
