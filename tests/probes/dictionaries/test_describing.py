"""Descriptions of a trained dictionary: effects, neighbours, clamping, files and the page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.probes.dictionaries import FeatureDescriptions, describe
from ed_interp.probes.dictionaries.description.effects import clamp_effects, direct_effects
from ed_interp.probes.dictionaries.reader import Reader, TokenStates, _pieces
from ed_interp.results import load_any


@pytest.fixture(scope="module")
def described(trained: Any, hooked: Any, texts: list[str]) -> FeatureDescriptions:
    return describe(
        trained[0], hooked, text=texts, tokens=1500, contexts=3, top_tokens=4, window=24,
        clamp_contexts=2,
    )  # fmt: skip


def test_it_describes_every_latent(described: FeatureDescriptions, trained: Any) -> None:
    assert len(described) == 64
    assert described.to_frame().shape[0] == 64
    fired = described.columns["fired"]
    assert fired.sum() == pytest.approx(4 * described.tokens, rel=0.01)  # k = 4
    best = int(fired.argmax())
    card = described.feature(best)
    assert card.contexts[0].values[card.contexts[0].peak] == pytest.approx(card.largest, rel=1e-3)
    assert card.density == fired[best] / described.tokens
    decoder = trained[0].decoder
    neighbour, cosine = card.nearest[0]
    expected = torch.cosine_similarity(decoder[best], decoder[neighbour], dim=0)
    assert cosine == pytest.approx(float(expected), abs=1e-5)
    assert neighbour != best


def test_a_feature_never_active_says_so(described: FeatureDescriptions) -> None:
    dead = np.flatnonzero(described.columns["fired"] == 0)
    assert len(dead) + described.alive == 64
    for index in dead[:2]:
        card = described.feature(int(index))
        assert card.contexts == ()
        assert card.clamp_nats is None


def test_no_such_feature(described: FeatureDescriptions) -> None:
    with pytest.raises(InvalidInputError, match="0 to 63"):
        described.feature(64)


def test_direct_effects_are_the_logits_of_the_normed_row(hooked: Any) -> None:
    # At a state of alternating signs the norm's division is known, so the effect can be seen.
    base = hooked.model
    rows = torch.randn(2, hooked.d_model, generator=torch.Generator().manual_seed(0))
    found = direct_effects(hooked, rows, top=3)
    norm = base.transformer.ln_f
    centred = rows - rows.mean(-1, keepdim=True)
    scale = centred.pow(2).mean(-1, keepdim=True).add(norm.eps).sqrt()
    logits = base.lm_head((norm(rows) - norm.bias) * scale)
    logits = logits - logits.mean(-1, keepdim=True)
    values, ids = logits.topk(3, dim=-1)
    np.testing.assert_array_equal(found["promoted"], ids.numpy())
    np.testing.assert_allclose(found["promoted_by"], values.detach().numpy(), rtol=1e-3)
    lowest = logits.min(-1).values.detach().numpy()
    np.testing.assert_allclose(found["suppressed_by"][:, 0], lowest, rtol=1e-3)


def test_clamping_equals_a_full_pass_with_the_row_added(trained: Any, hooked: Any) -> None:
    from ed_interp.streams.injection import Add, Where, inject

    dictionary = trained[0]
    site = dictionary.check(hooked)
    context = (3, 5, 8, 2, 7)
    largest = np.zeros(64, dtype=np.float32)
    largest[[10, 11]] = 3.0
    found = clamp_effects(Reader(dictionary, hooked, site), largest, [context], top=2)
    assert np.isnan(found["clamp_nats"][0])
    ids = torch.tensor([context])
    with torch.no_grad():
        plain = hooked.model(ids).logits[0, -1].log_softmax(-1)
        part = hooked.runner
        from ed_interp.models.runners import Inputs

        state = part.run(Inputs(ids), sites=[site], reads=torch.tensor([[4]])).states[0, 0]
        here = dictionary.encode(state)[0]
        for feature in (10, 11):
            row = dictionary.decoder[feature] * (3.0 - here[feature])
            with inject(hooked, Add(row, site, where=Where(positions=4))):
                after = hooked.model(ids).logits[0, -1].log_softmax(-1)
            expected = float((after.exp() * (after - plain)).sum())
            assert found["clamp_nats"][feature] == pytest.approx(expected, rel=1e-3, abs=1e-6)
            gained = (after.exp() - plain.exp()).topk(2)
            assert found["clamp_tokens"][feature].tolist() == gained.indices.tolist()


def test_pieces_keep_windows_whole() -> None:
    window = torch.tensor([0] * 3 + [1] * 5 + [2] * 2 + [3] * 4)
    part = TokenStates(torch.zeros(14, 1), torch.arange(14), window)
    pieces = _pieces(part, latents=2**24 // 6)  # room for 6 tokens
    assert [piece.ids.tolist() for piece in pieces] == [
        [0, 1, 2], [3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13],
    ]  # fmt: skip


def test_it_is_saved_and_read_back(described: FeatureDescriptions, tmp_path: Path) -> None:
    folder = described.save(tmp_path / "seen")
    again = FeatureDescriptions.load(folder)
    assert again.names == described.names
    for name, column in described.columns.items():
        np.testing.assert_array_equal(again.columns[name], column)
    with pytest.raises(RunFolderError):
        described.save(folder)
    # Version 1 had its arrays in a plain safetensors file.
    older = shutil.copytree(folder, tmp_path / "older")
    save_file(described.columns, older / "descriptions.safetensors")
    record = json.loads((older / "run.json").read_text("utf-8"))
    (older / "run.json").write_text(json.dumps({**record, "version": 1}))
    assert load_any(older).feature(3) == described.feature(3)
    whole = (folder / "descriptions.safetensors").read_bytes()
    flipped = bytes([*whole[:-1], whole[-1] ^ 1])
    for broken, message in ((whole[:100], "damaged"), (flipped, "altered after it was written")):
        (folder / "descriptions.safetensors").write_bytes(broken)
        with pytest.raises(RunFolderError, match=message):
            FeatureDescriptions.load(folder)


def test_the_page_is_one_file_that_loads_nothing(described: FeatureDescriptions) -> None:
    page = described.page()
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=[\"']https?:", page)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S).group(1))  # type: ignore[union-attr]
    assert data["latents"] == 64
    assert data["texts"] == list(described.token_texts)
    import base64

    fired = np.frombuffer(base64.b64decode(data["fired"]["data"]), "<u4")
    np.testing.assert_array_equal(fired, described.columns["fired"])


def test_hostile_token_texts_cannot_leave_the_data(described: FeatureDescriptions) -> None:
    import dataclasses

    texts = ("</script><script>alert(1)</script>", "<!--", *described.token_texts[2:])
    page = dataclasses.replace(described, token_texts=texts).page()
    assert "<script>alert(1)" not in page
    assert page.count("</script>") == described.page().count("</script>")


def test_bad_requests_are_refused(trained: Any, hooked: Any, texts: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="contexts must be 1 or greater, got 0"):
        describe(trained[0], hooked, text=texts, contexts=0)
    with pytest.raises(InvalidInputError, match="clamp_contexts must be 0 or greater, got -1"):
        describe(trained[0], hooked, text=texts, clamp_contexts=-1)
