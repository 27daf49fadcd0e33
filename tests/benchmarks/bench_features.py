"""The page of features against its limits: a minute for 1,024 latents, 60 MB for 16,384.

The dictionary is trained on the spot, on few tokens: what it is worth does not matter here, how
many of its latents are active does. The large page is of a random dictionary of 16,384 latents,
whose every latent is active, which is the most that a page can hold. CPU time on one thread is
compared with the limit, which is stated for two cores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from harness import Options, Result, Row, Target, say, timed

from ed_interp.models.load import load
from ed_interp.probes import dictionaries

MODEL, SITE = "icl-gpt2", "blocks.2.hook_resid_post"
SECONDS, MEGABYTES = 60.0, 60.0


def run(options: Options) -> Iterator[Result]:
    """One table."""
    latents, tokens = (256, 10_000) if options.quick else (1024, 200_000)
    large, read = (1024, 5_000) if options.quick else (16_384, 50_000)
    hooked = load(MODEL)
    say("training a dictionary")
    small = dictionaries.train(hooked, site=SITE, latents=latents, k=16, tokens=100_000)
    rows = [_row(small, hooked, tokens, f"{latents:,} latents over {tokens:,} tokens")]
    wide = _random(small, large)
    rows.append(_row(wide, hooked, read, f"{large:,} random latents over {read:,} tokens"))
    yield Result(
        "The page of features",
        "used / limit",
        tuple(row for pair in rows for row in pair),
        f"{MODEL}, {SITE}, 8 contexts and 4 clamped contexts per feature; limits: {SECONDS:g} s of "
        f"CPU time for the first dictionary, {MEGABYTES:g} MB for the second",
    )


def _row(dictionary: Any, hooked: Any, tokens: int, name: str) -> tuple[Row, Row]:
    say(name)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        taken, found = timed(lambda: dictionaries.describe(dictionary, hooked, tokens=tokens))
        written, _ = timed(lambda: found.write_page(page))
        size = page.stat().st_size / 1e6
    both = taken + written
    limited = dictionary.latents <= 1024
    return (
        Row(
            f"time, {name}",
            (both.cpu / SECONDS,),
            both.cpu,
            both.wall,
            Target("at most", 1.0) if limited else None,
            f"{found.alive:,} latents active",
        ),
        Row(
            f"size, {name}",
            (size / MEGABYTES,),
            target=Target("at most", 1.0),
            note=f"{size:.1f} MB",
        ),
    )


def _random(like: Any, latents: int) -> Any:
    """A top-k dictionary of random directions, the size of a large one."""
    from sae_lens import TopKSAE, TopKSAEConfig

    torch.manual_seed(0)
    sae = TopKSAE(TopKSAEConfig(d_in=like.width, d_sae=latents, k=16))
    with torch.no_grad():
        rows = torch.nn.functional.normalize(torch.randn(latents, like.width), dim=-1)
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
        sae.b_enc.zero_()
        sae.b_dec.copy_(like.sae.b_dec)
    return dictionaries.Dictionary(sae, site=like.site, stamp=like.stamp)
