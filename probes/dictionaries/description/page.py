"""The page of features: one HTML file that opens offline, and a short card for notebooks.

Numbers travel as base64 of typed arrays, which is what keeps 16,000 features at a few megabytes
and lets a browser open them at once; only the feature that is looked at becomes HTML. The page
carries a rule that forbids the browser to load anything. Cost: about a second for 16,000 features.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from ed_interp.figures.style import FONT, THEMES, translucent
from ed_interp.probes.dictionaries.description.contexts import BEFORE, BIN_EDGES, NO_TOKEN
from ed_interp.report import flattened, templates

if TYPE_CHECKING:
    from ed_interp.probes.dictionaries.description.descriptions import (
        FeatureCard,
        FeatureDescriptions,
    )

_NONE = 0xFFFFFFFF


def render_page(found: FeatureDescriptions) -> str:
    """One self-contained page with every feature."""
    data = _data(found)
    return (
        templates()
        .get_template("features.html.j2")
        .render(
            found=found,
            data=Markup(_embedded(data)),
            settings=flattened(found.settings),
            themes=THEMES,
            font=Markup(FONT),
            translucent=translucent,
        )
    )


def render_card(card: FeatureCard) -> str:
    """A feature as HTML for notebooks: no script, colours that suit both themes."""
    lines = [
        f"<b>feature {card.index}</b> {escape(card.name or 'no name')}",
        f"density {card.density:.3g}, largest {card.largest:.3g}, score {card.score:.2f}",
        "promotes " + ", ".join(f"<code>{escape(text)}</code>" for text, _ in card.promoted),
    ]
    rows = []
    for context in card.contexts:
        top = max(context.values, default=1.0) or 1.0
        rows.append(
            "".join(
                f'<span style="background:rgba(110,140,255,{0.6 * value / top:.2f})">'
                f"{escape(text.replace(chr(10), '↵'))}</span>"
                for text, value in zip(context.tokens, context.values, strict=True)
            )
        )
    return "<br>".join([*lines, *rows])


def _data(found: FeatureDescriptions) -> dict[str, Any]:
    from ed_interp.probes.dictionaries.description.descriptions import shown_bins

    columns = found.columns
    low, high = shown_bins(columns["histogram"])
    values = columns["context_values"].astype(np.float32)
    # A context is shaded relative to its feature's strongest activation.
    largest = np.maximum(columns["largest"], 1e-12)[:, None, None]
    shade = np.clip(np.round(values / largest * 255), 0, 255).astype(np.uint8)
    histogram = columns["histogram"][:, low:high]
    data: dict[str, Any] = {
        "tokens": found.tokens,
        "latents": len(found),
        "before": BEFORE,
        "width": columns["context_ids"].shape[2],
        "contexts": columns["context_ids"].shape[1],
        "texts": list(found.token_texts),
        "names": list(found.names),
        "edges": [float(edge) for edge in BIN_EDGES[low : high + 1]],
        "fired": _packed(columns["fired"], "uint32"),
        "context_ids": _packed(_ids(columns["context_ids"]), "uint32"),
        "shade": _packed(shade, "uint8"),
        "histogram": _packed(histogram, "uint32"),
    }
    if len(found.token_texts) < 0xFFFF:
        data["context_ids"] = _packed(_ids(columns["context_ids"]) & 0xFFFF, "uint16")
    for name in ("mean", "largest", "norm", "score", "control", "clamp_nats", "cosine"):
        if name in columns:
            data[name] = _packed(columns[name], "float32")
    for name in ("promoted", "suppressed", "clamp"):
        ids = "clamp_tokens" if name == "clamp" else name
        if ids in columns:
            data[ids] = _packed(columns[ids], "uint32")
            data[f"{name}_by"] = _packed(columns[f"{name}_by"], "float32")
            data["top"] = columns[ids].shape[1]
    data["nearest"] = _packed(columns["nearest"], "uint32")
    data["neighbours"] = columns["nearest"].shape[1]
    return data


def _ids(ids: NDArray[np.int32]) -> NDArray[np.uint32]:
    return np.where(ids == NO_TOKEN, _NONE, ids).astype(np.uint32)


def _packed(array: NDArray[Any], kind: str) -> dict[str, str]:
    """A typed array as the page's script reads it: little-endian, in base64."""
    raw = np.ascontiguousarray(array, dtype=np.dtype(kind).newbyteorder("<")).tobytes()
    return {"kind": kind, "data": base64.b64encode(raw).decode("ascii")}


def _embedded(data: dict[str, Any]) -> str:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    # A token's text may be anything, also what would end the script element that holds it.
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
