"""The same numbers as other steering libraries where conventions agree, and where they do not.

These libraries are not among our dependencies; the tests run where they are installed.
"""

import contextlib
import copy
import io
import sys
import warnings

import numpy
import pytest
import torch

import ed_interp
from ed_interp.adapters.steering import from_gguf, from_steering_vectors, to_gguf
from ed_interp.streams.direction import Direction
from ed_interp.streams.injection import Add, Where, inject

SITES = "blocks.{layer}.hook_resid_post"
IDS = torch.randint(3, 101, (3, 7), generator=torch.Generator().manual_seed(2))


def vectors(*layers):
    generator = torch.Generator().manual_seed(0)
    return {layer: torch.randn(32, generator=generator) for layer in layers}


def at(layer):
    return SITES.replace("{layer}", str(layer))


def generated(model, ids, **options):
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False,
        pad_token_id=0, output_logits=True, return_dict_in_generate=True, **options,
    )  # fmt: skip
    return torch.stack(out.logits, 1)


@pytest.fixture
def steering_vectors():
    return pytest.importorskip("steering_vectors", reason="a peer: pip install steering-vectors")


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_steering_vectors_writes_the_same(family, steering_vectors, build_model):
    model = build_model(family).eval()
    peer = steering_vectors.SteeringVector(vectors(0, 2))
    direction = from_steering_vectors(peer, model, site=SITES)
    for factor in (1.0, -2.5):
        with peer.apply(model, multiplier=factor):
            theirs, told = model(IDS).logits, generated(model, IDS)
        with inject(model, Add(direction, coefficient=factor)):
            ours, tells = model(IDS).logits, generated(model, IDS)
        assert (ours - theirs).abs().max() < 1e-6
        assert (tells - told).abs().max() < 1e-6
    assert (ours - model(IDS).logits).abs().max() > 0.05


@torch.no_grad()
def test_steering_vectors_trained_on_the_bundled_model_writes_the_same(steering_vectors):
    hooked = ed_interp.load("icl-gpt2", device="cpu")
    words = ["kitchen", "garden", "winter", "music"]
    pairs = [(f"{word} is good", f"{word} is bad") for word in words]
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        hooked.tokenizer.pad_token = hooked.tokenizer.pad_token or hooked.tokenizer.eos_token
        peer = steering_vectors.train_steering_vector(
            hooked.model, hooked.tokenizer, pairs, layers=[1, 2], read_token_index=-1
        )
    direction = from_steering_vectors(peer, hooked, site=SITES)
    # Its mean difference is ours: read at the same site, of the last token.
    ends = [
        torch.stack([_last(hooked, pair[side], at(1)) for pair in pairs]).mean(0) for side in (0, 1)
    ]
    assert (direction[at(1)] - (ends[0] - ends[1])).abs().max() < 1e-5
    ids = hooked.tokenizer("music is", return_tensors="pt").input_ids
    with peer.apply(hooked.model, multiplier=3.0):
        theirs = hooked.model(ids).logits
    with inject(hooked, Add(direction, coefficient=3.0)):
        ours = hooked.model(ids).logits
    assert (ours - theirs).abs().max() < 1e-6


def _last(hooked, text, site):
    from ed_interp.models.runners import Inputs

    ids = hooked.tokenizer(text, return_tensors="pt").input_ids
    reads = torch.tensor([[ids.shape[1] - 1]])
    return hooked.runner.run(Inputs(ids), sites=[hooked.site(site)], reads=reads).states[0, 0, 0]


@torch.no_grad()
def test_steering_vectors_from_a_position_on_misses_what_is_generated(
    steering_vectors, build_model
):
    model = build_model("llama").eval()
    peer = steering_vectors.SteeringVector(vectors(1))
    direction = from_steering_vectors(peer, model, site=SITES)

    def theirs(**options):
        with peer.apply(model, min_token_index=3):
            return generated(model, IDS, **options)

    def ours(**options):
        with inject(model, Add(direction, where=Where(positions=slice(3, None)))):
            return generated(model, IDS, **options)

    assert (ours() - ours(use_cache=False)).abs().max() < 1e-4
    assert (theirs() - theirs(use_cache=False)).abs().max() > 0.01
    assert (ours(use_cache=False) - theirs(use_cache=False)).abs().max() < 1e-6


@pytest.fixture
def repeng(monkeypatch):
    # It still uses a name that NumPy 2 dropped.
    monkeypatch.setattr(numpy, "float_", numpy.float64, raising=False)
    if "repeng" not in sys.modules:
        pytest.importorskip("repeng", reason="a peer: pip install repeng")
    import repeng

    return repeng


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_repeng_writes_and_keeps_the_same(family, repeng, build_model, tmp_path):
    model = build_model(family).eval()
    found = vectors(1, 2)
    peer = repeng.ControlVector(family, {layer: v.numpy() for layer, v in found.items()})
    direction = Direction.of(model, {at(k): v for k, v in found.items()}, method="by hand")
    control = repeng.ControlModel(copy.deepcopy(model), [1, 2])
    for factor in (1.5, -1.0):
        control.set_control(peer, factor)
        # A plain pass over several rows fails there: position ids come as one row.
        theirs, told = control.forward(IDS[:1]).logits, generated(control, IDS)
        with inject(model, Add(direction, coefficient=factor)):
            ours, tells = model(IDS[:1]).logits, generated(model, IDS)
        assert (ours - theirs).abs().max() < 1e-6
        assert (tells - told).abs().max() < 1e-6
    pytest.importorskip("gguf")
    read = repeng.ControlVector.import_gguf(to_gguf(direction, tmp_path / "ours.gguf"))
    assert read.model_type == family
    assert all(numpy.array_equal(read.directions[k], found[k].numpy()) for k in found)
    peer.export_gguf(tmp_path / "theirs.gguf")
    back = from_gguf(tmp_path / "theirs.gguf", model, site=SITES, last_block="keep")
    assert all(torch.equal(back[at(k)], found[k]) for k in found)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_pyvene_writes_the_same(build_model):
    pyvene = pytest.importorskip("pyvene", reason="a peer: pip install pyvene")
    model = build_model("gpt2").eval()
    vector = vectors(1)[1]
    plain = model(IDS).logits
    with inject(model, Add(vector, at(1))):
        ours = model(IDS).logits
    # It gives the block's place (its output) by name and the vector as a constant source.
    wrapped = pyvene.IntervenableModel(
        [
            {
                "component": "transformer.h[1].output",
                "intervention": pyvene.AdditionIntervention(
                    embed_dim=32, source_representation=vector
                ),
            }
        ],
        model=copy.deepcopy(model),
    )
    _, steered = wrapped({"input_ids": IDS}, unit_locations=None)
    assert (steered.logits - ours).abs().max() < 1e-6
    assert (ours - plain).abs().max() > 0.05
