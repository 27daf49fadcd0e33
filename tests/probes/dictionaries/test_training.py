"""Training: every architecture, the same result after a kill, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from ed_interp.errors import InvalidInputError, RunFolderError, UnknownNameError
from ed_interp.probes import dictionaries
from ed_interp.probes.dictionaries import training
from ed_interp.probes.dictionaries.options import ARCHITECTURES, TrainOptions


def weights(dictionary):
    return dictionary.sae.state_dict()


def assert_same(one, other):
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_it_learns(trained):
    history = trained[0].history
    assert history[-1].fvu < 0.6 * history[0].fvu
    assert history[-1].l0 <= 4
    assert len(trained[0].record.plot().data) == 3


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_trains_saves_and_loads(hooked, small, states, tmp_path, name):
    k = 4 if ARCHITECTURES[name].takes_k else None
    made = dictionaries.train(
        hooked, architecture=name, k=k, out=tmp_path / "sae", **{**small, "tokens": 1024}
    )
    loaded = dictionaries.load(tmp_path / "sae")
    assert torch.equal(loaded.encode(states), made.encode(states))
    assert torch.equal(loaded.reconstruct(states), made.reconstruct(states))
    assert loaded.describe() == made.describe()
    assert loaded.fits(hooked) is None
    assert loaded.settings["architecture"] == name


def test_the_same_seed_gives_the_same_dictionary_and_another_another(hooked, small):
    one, again = (dictionaries.train(hooked, k=4, **{**small, "tokens": 1024}) for _ in "12")
    assert_same(one, again)
    other = dictionaries.train(hooked, k=4, seed=1, **{**small, "tokens": 1024})
    assert not torch.equal(one.decoder, other.decoder)


def test_training_leaves_the_random_generator_alone(hooked, small):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dictionaries.train(hooked, k=4, **{**small, "tokens": 512})
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["topk", "batchtopk", "spike-slab"])
def test_a_killed_run_ends_with_the_same_weights(
    hooked, small, tmp_path, interrupt, monkeypatch, name
):
    # Blocks of 4 batches: the checkpoint stands inside the third, the kill in the fourth.
    monkeypatch.setattr(training, "_BLOCK_BYTES", 4 * 4 * 128 * 32)
    settings = {**small, "tokens": 2560, "architecture": name, "k": 4, "checkpoint_every": 5}
    whole = dictionaries.train(hooked, **settings)
    folder = tmp_path / "sae"
    with pytest.raises(KeyboardInterrupt):
        dictionaries.train(hooked, out=folder, progress=interrupt(13), **settings)
    assert not folder.exists()
    with pytest.raises(RunFolderError, match="interrupted; repeat its command"):
        dictionaries.load(folder)
    steps = []
    resumed = dictionaries.train(
        hooked, out=folder, progress=lambda done, total, what: steps.append(done), **settings
    )
    assert steps[0] == 10, "it did not begin at the checkpoint"
    assert_same(whole, resumed)
    assert whole.history == resumed.history
    assert not list(tmp_path.rglob("training.safetensors"))


def test_a_damaged_checkpoint_is_named(hooked, small, tmp_path, interrupt):
    settings = {**small, "k": 4, "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        dictionaries.train(hooked, out=tmp_path / "sae", progress=interrupt(5), **settings)
    file = next(tmp_path.rglob("training.safetensors"))
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RunFolderError, match=r"training.safetensors is damaged .*train again"):
        dictionaries.train(hooked, out=tmp_path / "sae", **settings)


def test_a_full_disk_leaves_nothing_half_written(hooked, small, tmp_path, no_room):
    with pytest.raises(RunFolderError, match="no space left"):
        dictionaries.train(hooked, k=4, out=tmp_path / "sae", **{**small, "tokens": 512})
    assert not (tmp_path / "sae").exists()
    assert not list(tmp_path.rglob("sae_weights.safetensors"))


def test_an_existing_folder_is_not_replaced(hooked, small, trained):
    with pytest.raises(RunFolderError, match="exists"):
        dictionaries.train(hooked, k=4, out=trained[1], **small)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 65}, "k must be at most latents .64., got 65"),
        ({"k": 0}, "k must be 1 or greater, got 0"),
        ({"latents": 0}, "latents must be 1 or greater, got 0"),
        ({"tokens": 63}, "must not be fewer than latents .64."),
        ({"tokens": 100}, "or batch_size .128., got 100"),
        ({"batch_size": 0}, "batch_size must be 1 or greater, got 0"),
        ({"lr": float("nan")}, "lr must be a finite number, got nan"),
        ({"window": 257}, "window must be 2 to 256 tokens"),
        ({"text": []}, "holds no text"),
        ({"text": ["  ", "\n"]}, "holds no text"),
        ({"text": ["red cat"]}, "fewer than the 64 latents"),
        ({"architecture": "gated", "k": 4}, "k must not be given for gated"),
        ({"architecture": "spike-slab", "sae_lens": {"alpha": 2.0}}, "alpha must lie between"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(hooked, small, tmp_path, change, message):
    with pytest.raises(InvalidInputError, match=message):
        dictionaries.train(hooked, out=tmp_path / "sae", **{**small, **change})
    assert not (tmp_path / "sae").exists()


def test_unknown_names_list_the_nearest(hooked, small, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean"):
        dictionaries.train(hooked, **{**small, "site": "blocks.0.hook_resid_pots"})
    with pytest.raises(UnknownNameError, match="the model has 2 blocks"):
        dictionaries.train(hooked, **{**small, "site": "blocks.7.hook_resid_post"})
    with pytest.raises(UnknownNameError, match="topk"):
        dictionaries.train(hooked, architecture="top-k", **small)
    out = tmp_path / "SAE"
    with pytest.raises(UnknownNameError, match="unknown option of topk 'kay'; did you mean k"):
        dictionaries.train(hooked, **{**small, "sae_lens": {"kay": 3}}, out=out)
    assert not out.exists()


def test_default_k_is_for_those_that_take_one():
    assert TrainOptions(site="s").active == 16
    assert TrainOptions(site="s", architecture="standard").active is None


def test_the_record_says_what_decided_the_result(trained):
    record = json.loads((trained[1] / "run.json").read_text("utf-8"))
    settings = record["settings"]
    assert (settings["latents"], settings["k"], settings["seed"]) == (64, 4, 0)
    assert settings["text"]["documents"] == 200
    assert record["environment"]["versions"]["sae-lens"]
    assert "device" not in settings["model"]
