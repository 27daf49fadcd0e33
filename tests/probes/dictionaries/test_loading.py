"""Loading: both ways between us and SAELens, the converters, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from ed_interp.errors import InvalidInputError, ModelLoadError, UnknownNameError
from ed_interp.probes import dictionaries

WIDTH, LATENTS, K = 32, 48, 5


@pytest.fixture
def tensors():
    made = torch.Generator().manual_seed(1)
    return {
        "encoder": torch.randn(LATENTS, WIDTH, generator=made),
        "decoder": torch.randn(WIDTH, LATENTS, generator=made),
        "bias": torch.randn(LATENTS, generator=made),
        "centre": torch.randn(WIDTH, generator=made),
    }


def by_hand(tensors, states, *, k=None, centred=True, threshold=None):
    """Activations and reconstruction, from the definition."""
    inside = states - tensors["centre"] if centred else states
    found = inside @ tensors["encoder"].T + tensors["bias"]
    if threshold is not None:
        found = found * (found > threshold)
    found = found.relu()
    if k is not None:
        kept = found.topk(k, dim=-1)
        found = torch.zeros_like(found).scatter(-1, kept.indices, kept.values)
    return found, found @ tensors["decoder"].T + tensors["centre"]


def assert_is(dictionary, states, expected):
    activations, out = expected
    torch.testing.assert_close(dictionary.encode(states), activations, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dictionary.reconstruct(states), out, atol=1e-5, rtol=1e-5)


def test_plain_sae_lens_loads_ours_to_equal_outputs(trained, states):
    from sae_lens import SAE

    ours, folder = trained
    theirs = SAE.load_from_disk(folder)
    assert torch.equal(theirs.encode(states), ours.encode(states))
    assert torch.equal(theirs(states), ours.reconstruct(states))
    assert theirs.cfg.metadata.hook_name == ours.site.name


@pytest.mark.parametrize("kind", ["standard", "topk", "jumprelu", "gated"])
def test_ours_loads_plain_sae_lens_to_equal_outputs(tmp_path, states, kind):
    from ed_interp.probes.dictionaries.backend import registry

    made, config = registry.get_sae_class(kind)
    extra = {"k": 4} if kind == "topk" else {}
    sae = made(config(d_in=WIDTH, d_sae=LATENTS, **extra))
    sae.cfg.metadata.hook_name = "blocks.1.hook_resid_pre"
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter).abs())
    sae.save_model(tmp_path / "theirs")
    ours = dictionaries.load(tmp_path / "theirs")
    assert torch.equal(ours.encode(states), sae.encode(states))
    assert torch.equal(ours.reconstruct(states), sae(states))
    assert ours.site.name == "blocks.1.hook_resid_pre"
    assert torch.equal(dictionaries.load(sae).encode(states), sae.encode(states))


def test_saving_what_was_loaded_changes_nothing(trained, states, tmp_path):
    loaded = dictionaries.load(trained[1])
    again = dictionaries.load(loaded.save(tmp_path / "copy"))
    assert torch.equal(again.encode(states), loaded.encode(states))
    assert again.record == loaded.record
    assert again.stamp == loaded.stamp


def test_the_site_that_a_hook_means():
    from ed_interp.probes.dictionaries.loading import site_of

    assert site_of("blocks.3.hook_out").name == "blocks.3.hook_resid_post"
    assert site_of("blocks.3.hook_in").name == "blocks.3.hook_resid_pre"
    assert site_of("blocks.3.attn.hook_z") is None
    assert site_of("blocks.3.mlp.hook_out") is None
    assert site_of(None) is None


# EleutherAI's sparsify.


@pytest.fixture
def sparsify_folder(tmp_path, tensors):
    folder = tmp_path / "run" / "layers.1"
    folder.mkdir(parents=True)
    config = {"activation": "topk", "k": K, "num_latents": LATENTS, "d_in": WIDTH}
    (folder / "cfg.json").write_text(json.dumps(config))
    (folder.parent / "config.json").write_text(json.dumps({"model": "someone/model"}))
    named = {
        "encoder.weight": tensors["encoder"],
        "encoder.bias": tensors["bias"],
        "W_dec": tensors["decoder"].T.contiguous(),
        "b_dec": tensors["centre"],
    }
    save_file(named, folder / "sae.safetensors")
    return folder


def test_sparsify(sparsify_folder, tensors, states):
    found = dictionaries.load(sparsify_folder)
    assert_is(found, states, by_hand(tensors, states, k=K))
    assert found.site.name == "blocks.1.hook_resid_post"
    assert found.model_name == "someone/model"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transcode": True}, "a transcoder"),
        ({"skip_connection": True}, "a skip connection"),
        ({"signed": True}, "signed latents"),
        ({"activation": "groupmax"}, "'groupmax' is not topk"),
        ({"k": None}, "says no k"),
    ],
)
def test_sparsify_that_is_something_else(sparsify_folder, change, message):
    config = json.loads((sparsify_folder / "cfg.json").read_text())
    (sparsify_folder / "cfg.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelLoadError, match=message):
        dictionaries.load(sparsify_folder)


# saprmarks' dictionary_learning.


def theirs(tensors, kind):
    if kind in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        state = {
            "W_enc": tensors["encoder"].T,
            "W_dec": tensors["decoder"].T,
            "b_enc": tensors["bias"],
            "b_dec": tensors["centre"],
        }
    else:
        centre = "bias" if kind == "AutoEncoder" else "b_dec"
        state = {
            "encoder.weight": tensors["encoder"],
            "encoder.bias": tensors["bias"],
            "decoder.weight": tensors["decoder"],
            centre: tensors["centre"],
        }
    if kind == "JumpReluAutoEncoder":
        state["threshold"] = torch.full((LATENTS,), 0.7)
    elif kind != "AutoEncoder":
        state |= {"threshold": torch.tensor(0.7), "k": torch.tensor(K)}
    return state


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("AutoEncoder", {}),
        ("AutoEncoderTopK", {"k": K}),
        ("BatchTopKSAE", {"threshold": 0.7}),
        ("MatryoshkaBatchTopKSAE", {"threshold": 0.7}),
        ("JumpReluAutoEncoder", {"threshold": 0.7, "centred": False}),
    ],
)
def test_dictionary_learning(tensors, states, tmp_path, kind, rule):
    config = {"trainer": {"dict_class": kind, "layer": 1, "lm_name": "a/model", "k": K}}
    expected = by_hand(tensors, states, **rule)
    found = dictionaries.from_dictionary_learning(theirs(tensors, kind), config)
    assert_is(found, states, expected)
    assert found.site.name == "blocks.1.hook_resid_post"
    assert found.model_name == "model"
    (tmp_path / "config.json").write_text(json.dumps(config))
    whole = {name: part.contiguous() for name, part in theirs(tensors, kind).items()}
    save_file(whole, tmp_path / "ae.safetensors")
    assert_is(dictionaries.load(tmp_path), states, expected)


def test_dictionary_learning_gated(tensors, states):
    made = torch.Generator().manual_seed(2)
    r, gate, magnitude = (torch.randn(LATENTS, generator=made) for _ in range(3))
    state = {
        "encoder.weight": tensors["encoder"],
        "decoder.weight": tensors["decoder"],
        "decoder_bias": tensors["centre"],
        "r_mag": r,
        "gate_bias": gate,
        "mag_bias": magnitude,
    }
    inside = (states - tensors["centre"]) @ tensors["encoder"].T
    activations = (inside + gate > 0) * (r.exp() * inside + magnitude).relu()
    out = activations @ tensors["decoder"].T + tensors["centre"]
    assert_is(dictionaries.from_dictionary_learning(state), states, (activations, out))


def test_dictionary_learning_that_is_ambiguous_or_unknown(tensors):
    load = dictionaries.from_dictionary_learning
    with pytest.raises(InvalidInputError, match="pass config="):
        load(theirs(tensors, "BatchTopKSAE"))
    with pytest.raises(InvalidInputError, match="'IdentityDict' of dictionary_learning"):
        load(theirs(tensors, "AutoEncoder"), {"dict_class": "IdentityDict"})
    with pytest.raises(
        InvalidInputError, match="must be a dictionary of dictionary_learning, got a str"
    ):
        load("ae.pt")
    unset = theirs(tensors, "BatchTopKSAE") | {"threshold": torch.tensor(-1.0)}
    with pytest.raises(ModelLoadError, match="never set"):
        load(unset, {"dict_class": "BatchTopKSAE"})


def test_a_pickle_is_refused_and_the_ways_out_named(tmp_path, tensors):
    torch.save(theirs(tensors, "AutoEncoder"), tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=r"is a pickle.*from_dictionary_learning"):
        dictionaries.load(tmp_path)


# Releases, and what is not there.


def test_unknown_releases_and_ids_list_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown release 'gpt2-smal-res-jb'; did you mean"):
        dictionaries.load("gpt2-smal-res-jb", "blocks.8.hook_resid_pre")
    with pytest.raises(UnknownNameError, match=r"unknown id of release .*did you mean"):
        dictionaries.load("gpt2-small-res-jb", "blocks.88.hook_resid_pre")


def test_a_release_offline_names_the_local_way():
    with pytest.raises(ModelLoadError, match="offline, pass a local folder instead"):
        dictionaries.load("gpt2-small-res-jb", "blocks.8.hook_resid_pre")


def test_a_release_of_pickles_is_refused():
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    known = get_pretrained_saes_directory()
    name = next(n for n, e in known.items() if e.conversion_func == "dictionary_learning_1")
    with pytest.raises(ModelLoadError, match="published as pickles"):
        dictionaries.load(name, next(iter(known[name].saes_map)))


@pytest.fixture
def damaged(trained, tmp_path):
    """A copy of a good folder, to be spoilt."""
    return trained[0].save(tmp_path / "copy")


def spoil(folder, name, change):
    data = json.loads((folder / name).read_text("utf-8"))
    (folder / name).write_text(json.dumps({**data, **change}))


def test_damaged_folders(damaged):
    weights = damaged / "sae_weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-50])
    with pytest.raises(ModelLoadError, match=r"sae_weights.safetensors is cut short, damaged"):
        dictionaries.load(damaged)
    weights.write_bytes(whole)
    spoil(damaged, "cfg.json", {"d_sae": 65})
    with pytest.raises(ModelLoadError, match="says d_sae=65 and the weights have 64"):
        dictionaries.load(damaged)
    spoil(damaged, "cfg.json", {"d_sae": 64, "architecture": "topp"})
    with pytest.raises(UnknownNameError, match="unknown architecture 'topp'"):
        dictionaries.load(damaged)
    (damaged / "cfg.json").write_text("{")
    with pytest.raises(ModelLoadError, match=r"cfg.json is damaged"):
        dictionaries.load(damaged)
    (damaged / "cfg.json").unlink()
    with pytest.raises(ModelLoadError, match=r"cannot read .*cfg.json"):
        dictionaries.load(damaged)


def test_missing_tensors_are_named(damaged):
    from safetensors.torch import load_file

    file = damaged / "sae_weights.safetensors"
    kept = load_file(file)
    save_file({name: part for name, part in kept.items() if name != "W_dec"}, file)
    with pytest.raises(ModelLoadError, match="no W_dec"):
        dictionaries.load(damaged)
    save_file({name: part for name, part in kept.items() if name != "b_enc"}, file)
    with pytest.raises(ModelLoadError, match="b_enc"):
        dictionaries.load(damaged)


def test_places_without_a_dictionary(tmp_path):
    with pytest.raises(ModelLoadError, match="there is no folder"):
        dictionaries.load(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ModelLoadError, match=r"holds no dictionary \(it holds notes.txt\)"):
        dictionaries.load(tmp_path)
    with pytest.raises(ModelLoadError, match="is a file"):
        dictionaries.load(tmp_path / "notes.txt")
    with pytest.raises(InvalidInputError, match="got a int"):
        dictionaries.load(3)
