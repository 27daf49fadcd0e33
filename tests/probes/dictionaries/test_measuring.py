"""Measuring: each number against its definition, and against a dictionary made to order."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.probes import dictionaries
from ed_interp.probes.dictionaries.measuring import cross_entropy_recovered
from ed_interp.probes.dictionaries.monosemantic import (
    LEAST_FIRED,
    monosemanticity,
    token_categories,
)
from ed_interp.probes.dictionaries.probing import concepts, f_ratio, sparse_probing
from ed_interp.probes.dictionaries.reader import Observation, Reader, observe, stream_states
from ed_interp.probes.dictionaries.text import Windows, text_source
from ed_interp.prompts.tasks import LabelledTask


@pytest.fixture(scope="module")
def held(hooked, texts):
    return Windows(text_source(texts), hooked, window=32).once("train", seed=0, tokens=1500)


@pytest.fixture(scope="module")
def observed(trained, hooked, held):
    return observe(Reader.of(trained[0], hooked), held)


def test_observation_is_the_definition(trained, hooked, held, observed):
    dictionary = trained[0]
    states = torch.cat([p.states for p in stream_states(hooked, dictionary.site, held)])
    activations = dictionary.encode(states)
    out = dictionary.reconstruct(states)
    assert np.array_equal(observed.activations.toarray(), activations.numpy())
    assert observed.l0 == pytest.approx(float((activations != 0).sum(-1).float().mean()))
    left = (states - out).square().sum() / (states - states.mean(0)).square().sum()
    assert observed.fvu == pytest.approx(float(left), rel=1e-4)
    assert observed.mean == pytest.approx(states.mean(0).numpy(), abs=1e-5)


class Identity:
    """A SAELens-like object that reconstructs exactly, or always gives one vector."""

    def __init__(self, template, constant=None):
        self.cfg = template.cfg
        self.device, self.dtype = template.device, template.dtype
        self.W_dec = torch.eye(32)
        self.constant = constant

    def encode(self, states):
        return states

    def decode(self, activations):
        return activations if self.constant is None else self.constant.expand_as(activations)


def made(trained, constant=None):
    sae = Identity(trained[0].sae, constant)
    return dataclasses.replace(trained[0], sae=sae)


@pytest.fixture
def width(trained, monkeypatch):
    # An identity has as many latents as channels.
    monkeypatch.setattr(trained[0].sae.cfg, "d_sae", 32)


def test_a_perfect_dictionary_recovers_everything(trained, hooked, held, observed, width):
    mean = torch.from_numpy(observed.mean)
    found = cross_entropy_recovered(Reader.of(made(trained), hooked), held, mean=mean)
    assert found.spliced == pytest.approx(found.clean, abs=1e-6)
    assert found.against_zero == pytest.approx(1.0, abs=1e-4)
    assert found.against_mean == pytest.approx(1.0, abs=1e-4)
    assert found.against_zero_low <= found.against_zero <= found.against_zero_high


def test_a_constant_recovers_nothing_of_itself(trained, hooked, held, observed, width):
    mean = torch.from_numpy(observed.mean)
    flat = cross_entropy_recovered(Reader.of(made(trained, mean), hooked), held, mean=mean)
    assert flat.against_mean == pytest.approx(0.0, abs=1e-4)
    zero = cross_entropy_recovered(
        Reader.of(made(trained, torch.zeros(32)), hooked), held, mean=mean
    )
    assert zero.against_zero == pytest.approx(0.0, abs=1e-4)


def test_cross_entropy_is_that_of_the_model(trained, hooked, held):
    some = held[:5]
    found = cross_entropy_recovered(Reader.of(trained[0], hooked), some, mean=torch.zeros(32))
    total, count = 0.0, 0
    for ids in some:
        row = torch.tensor([ids])
        with torch.no_grad():
            logits = hooked.model(input_ids=row).logits
        total += float(
            torch.nn.functional.cross_entropy(logits[0, :-1], row[0, 1:], reduction="sum")
        )
        count += len(ids) - 1
    assert found.tokens == count
    assert found.clean == pytest.approx(total / count, rel=1e-4)


def built(activations, ids, windows):
    rows = sparse.csr_array(activations.astype(np.float32))
    return Observation(rows, ids, windows)


def test_monosemanticity_finds_the_token_the_category_and_neither():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 20, 8000)
    activations = np.zeros((8000, 4))
    activations[:, 0] = ids == 3
    activations[:, 1] = np.isin(ids, [5, 6, 7, 8]) * rng.uniform(0.9, 1.1, 8000)
    activations[:, 2] = rng.random(8000) < 0.05
    activations[:5, 3] = 1.0
    names = [f"t{token}" for token in range(20)]
    found = monosemanticity(
        built(activations, ids, np.arange(8000) // 10), names, {"group": (5, 6, 7, 8)}
    )
    assert found.predictor[:2] == ("token:t3", "category:group")
    assert found.score[0] == pytest.approx(1.0, abs=1e-4)
    assert found.score[1] > 0.97
    assert found.score[2] < 0.01
    assert np.nanmax(found.control) < 0.01
    assert math.isnan(found.score[3]), f"scored on fewer than {LEAST_FIRED} tokens"
    assert found.predictor[3] is None


def test_categories_know_what_is_written_and_what_is_meant():
    texts = ["France", " Japan", " Kenya", "12", "7", " 3", "x", ".", "\n", "ing", " Peru"]
    found = token_categories(texts)
    assert found["digits"] == (3, 4, 5)
    assert set(found["country (input)"]) >= {0, 1, 2}
    assert "one letter" not in found, "two tokens are no category"


def test_splitting_and_absorption():
    rng = np.random.default_rng(0)
    size, members = 1200, (0, 1)
    ids = rng.integers(0, 4, size)
    inside = np.isin(ids, members)
    states = rng.normal(0, 0.05, (size, 3)).astype(np.float32)
    states[inside, 0] += 1.0
    decoder = np.eye(3, dtype=np.float32)[[0, 0, 2]]
    one = np.zeros((size, 3), np.float32)
    one[inside, 0] = 1.0
    (whole,) = concepts(states, one, ids, decoder, {"c": members})
    assert (whole.features, whole.missed, whole.absorbed) == ((0,), 0.0, 0.0)
    assert whole.f1 == whole.f1_dense == 1.0
    split = one.copy()
    split[ids == 1, 0], split[ids == 1, 1] = 0.0, 1.0
    (halves,) = concepts(states, split, ids, decoder, {"c": members})
    assert set(halves.features) == {0, 1}
    assert halves.f1 > halves.f1_one + 0.2
    # A few tokens of the concept fire another latent that points the same way.
    taken = one.copy()
    few = np.flatnonzero(ids == 1)[::12]
    taken[few, 0], taken[few, 1] = 0.0, 1.0
    (absorbed,) = concepts(states, taken, ids, decoder, {"c": members})
    assert absorbed.features == (0,)
    assert absorbed.absorbed == absorbed.missed > 0.01
    away = decoder.copy()
    away[1] = [0, 1, 0]
    (missed,) = concepts(states, taken, ids, away, {"c": members})
    assert missed.missed == absorbed.missed
    assert missed.absorbed == 0.0


def test_f_ratio_is_scikit_learns():
    from sklearn.feature_selection import f_classif

    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 60)
    table = rng.normal(size=(60, 4)) + labels[:, None] * [0, 0.5, 1, 2]
    np.testing.assert_allclose(f_ratio(table, labels), f_classif(table, labels)[0], rtol=1e-9)
    constant = np.ones((60, 1))
    exact = (labels == 1).astype(float)[:, None]
    assert f_ratio(constant, labels)[0] == 0
    assert f_ratio(exact, labels)[0] > 1e6


def test_sparse_probing_finds_a_feature_that_names_the_class(trained, hooked):
    # Which word is first in the phrase decides its class, so the state at the last token does.
    pairs = tuple((f"{w} {n}", w) for w in ("red", "blue") for n in "abcdefghijkl")
    last = tuple((f"{n} {w}", w) for w in ("red", "blue") for n in "abcdefghijkl")
    found = sparse_probing(
        Reader.of(trained[0], hooked), [LabelledTask("last", last)], features=(1, 8)
    )
    assert [row.features for row in found] == [1, 8]
    assert found[1].accuracy > 0.9
    assert found[0].chance == 0.5
    assert (found[0].classes, found[0].n) == (2, 24)
    with pytest.raises(InvalidInputError, match="fewer than two classes"):
        sparse_probing(Reader.of(trained[0], hooked), [LabelledTask("few", pairs[:4])])


@pytest.fixture(scope="module")
def measured(trained, hooked, texts):
    task = LabelledTask(
        "t", tuple((f"{n} {w}", w) for w in ("red", "blue") for n in "abcdefghijkl")
    )
    return dictionaries.measure(
        trained[1], hooked, text=texts, tokens=1500, ce_tokens=300, tasks=[task]
    )


def test_a_measurement_can_be_kept(measured, tmp_path):
    folder = measured.save(tmp_path / "measured")
    again = dictionaries.DictionaryMeasurement.load(folder)
    assert again.to_json() == measured.to_json()
    pd.testing.assert_frame_equal(again.features, measured.features)
    assert again.concepts == measured.concepts
    assert again.probing == measured.probing
    with pytest.raises(RunFolderError, match="exists"):
        measured.save(folder)
    # Older files hold three of the numbers in the summary only.
    data = json.loads((folder / "run.json").read_text("utf-8"))
    older = {name: data[name] for name in data if name not in ("sha256", "tokens", "l0", "fvu")}
    (folder / "run.json").write_text(json.dumps(older))
    assert dictionaries.DictionaryMeasurement.load(folder).to_json() == measured.to_json()
    (folder / "run.json").write_text('{"format": "other"}')
    with pytest.raises(RunFolderError, match="must be of format"):
        dictionaries.DictionaryMeasurement.load(folder)
    with pytest.raises(RunFolderError, match="there is no run"):
        dictionaries.DictionaryMeasurement.load(tmp_path / "nothing")


def test_its_numbers_agree_with_each_other(measured):
    frame = measured.to_frame()
    assert len(frame) == 64
    assert frame["density"].sum() == pytest.approx(measured.l0)
    assert measured.living + measured.dead == 64
    assert sum(count for _, _, count in measured.density_histogram()) == measured.living
    summary = measured.summary()
    assert summary["ce_recovered_zero"] == measured.recovered.against_zero
    assert 0 < summary["fvu"] < 1
    assert measured.monosemanticity[0] > measured.monosemanticity[1]
    assert measured.title() in measured._repr_html_()
    assert {trace.name for trace in measured.plot().data} >= {"living features", "features"}


def test_what_cannot_be_measured(trained, hooked, texts):
    with pytest.raises(InvalidInputError, match="tokens must be 2 or greater, got 1"):
        dictionaries.measure(trained[0], hooked, text=texts, tokens=1)
    nameless = dataclasses.replace(trained[0], stamp=None)
    nameless.sae.cfg.metadata.model_name, kept = None, nameless.sae.cfg.metadata.model_name
    try:
        with pytest.raises(InvalidInputError, match="names no model"):
            dictionaries.measure(nameless, text=texts)
    finally:
        nameless.sae.cfg.metadata.model_name = kept
