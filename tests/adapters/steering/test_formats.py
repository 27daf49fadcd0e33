"""Directions to and from other tools' formats."""

import pytest
import torch

from ed_interp.adapters.steering import from_gguf, from_steering_vectors, to_gguf
from ed_interp.errors import InvalidInputError, RunFolderError, UnknownNameError
from ed_interp.streams.direction import Direction

SITES = "blocks.{layer}.hook_resid_post"


@pytest.fixture(scope="module")
def model(build_model):
    return build_model("llama")


@pytest.fixture(scope="module")
def direction(model):
    vectors = {SITES.replace("{layer}", str(k)): torch.randn(32) for k in (1, 2)}
    return Direction.of(model, vectors, method="by hand")


@pytest.fixture
def gguf():
    return pytest.importorskip("gguf", reason="comes with the steering extra")


@pytest.fixture
def written(gguf, direction, tmp_path):
    return to_gguf(direction, tmp_path / "vector.gguf")


def test_gguf_there_and_back(written, direction, model):
    back = from_gguf(written, model, site=SITES)
    assert list(back.vectors) == list(direction.vectors)
    assert all(torch.equal(back[site], direction[site]) for site in direction.vectors)
    assert back.provenance.settings["found"]["method"] == "by hand"
    assert [file.name for file in written.parent.iterdir()] == [written.name]


def test_gguf_carries_the_coefficient_and_is_not_overwritten(written, direction, model):
    with pytest.raises(RunFolderError, match="exists"):
        to_gguf(direction, written)
    to_gguf(direction, written, coefficient=-2.0, overwrite=True)
    back = from_gguf(written, model, site=SITES)
    site = "blocks.1.hook_resid_post"
    assert torch.equal(back[site], -2 * direction[site])


def test_gguf_has_no_place_for_other_sites(gguf, model, tmp_path):
    for site in ("blocks.0.hook_resid_post", "blocks.1.hook_attn_out"):
        direction = Direction.of(model, {site: torch.ones(32)}, method="by hand")
        with pytest.raises(InvalidInputError, match="no place for"):
            to_gguf(direction, tmp_path / "vector.gguf")
    assert not list(tmp_path.iterdir())


def foreign(gguf, path, tensors, *, hint="llama", architecture="controlvector"):
    writer = gguf.GGUFWriter(path, architecture)
    if hint is not None:
        writer.add_string("controlvector.model_hint", hint)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_last_block_of_a_foreign_file_needs_a_word(gguf, model, tmp_path):
    tensors = {"direction.1": torch.ones(32), "direction.2": torch.full((32,), 2.0)}
    path = foreign(gguf, tmp_path / "foreign.gguf", tensors)
    with pytest.raises(InvalidInputError, match="after the final norm"):
        from_gguf(path, model, site=SITES)
    dropped = from_gguf(path, model, site=SITES, last_block="drop")
    assert list(dropped.vectors) == ["blocks.1.hook_resid_post"]
    kept = from_gguf(path, model, site=SITES, last_block="keep")
    assert torch.equal(kept["blocks.2.hook_resid_post"], tensors["direction.2"])


def test_gguf_files_that_are_something_else(gguf, written, model, build_model, tmp_path):
    ones = {"direction.1": torch.ones(32)}

    def refused(path, message, **options):
        with pytest.raises(InvalidInputError, match=message) as caught:
            from_gguf(path, model, **({"site": SITES} | options))
        assert "\n" not in str(caught.value)

    refused(foreign(gguf, tmp_path / "a.gguf", ones, hint="gpt2"), "architecture 'gpt2'")
    refused(
        foreign(gguf, tmp_path / "b.gguf", ones, architecture="llama"), "must be a control vector"
    )
    refused(foreign(gguf, tmp_path / "c.gguf", ones, hint=None), "must be a control vector")
    refused(foreign(gguf, tmp_path / "d.gguf", {"mood": torch.ones(32)}), "a tensor 'mood'")
    wide = foreign(gguf, tmp_path / "e.gguf", {"direction.1": torch.ones(31)})
    refused(wide, "must have 32 numbers")
    refused(written, "site must hold {layer}", site="blocks.1.hook_resid_post")
    with pytest.raises(UnknownNameError, match="unknown hook point"):
        from_gguf(written, model, site="blocks.{layer}.hook_residual")
    with pytest.raises(InvalidInputError, match="made for the architecture 'llama'"):
        from_gguf(written, build_model("gpt2"), site=SITES)
    data = written.read_bytes()
    for keep in (0, 3, 20, 200, len(data) - 40):
        written.write_bytes(data[:keep])
        refused(written, "damaged|must be a GGUF file")
    torch.save({"direction.1": torch.ones(32)}, tmp_path / "f.gguf")
    refused(tmp_path / "f.gguf", "must be a GGUF file, got a pickle")
    refused(tmp_path / "none.gguf", "does not exist")


class Vector:
    """What a SteeringVector has."""

    def __init__(self, layers, layer_type="decoder_block"):
        self.layer_activations, self.layer_type = layers, layer_type


def test_a_live_steering_vector_is_taken_at_its_own_site_only(model, build_model):
    layers = {0: torch.ones(32), 2: torch.zeros(32) + 3}
    direction = from_steering_vectors(Vector(layers), model, site=SITES)
    assert torch.equal(direction["blocks.2.hook_resid_post"], layers[2])
    attention = "blocks.{layer}.hook_attn_out"
    inner = from_steering_vectors(Vector(layers, "self_attn"), model, site=attention)
    assert [site.kind for site in inner.sites] == ["attn_out"] * 2
    for vector, site, message in [
        (Vector(layers), attention, r"written at 'blocks\.{layer}\.hook_resid_post'"),
        (Vector(layers, "input_layernorm"), SITES, "no site at all"),
        (Vector({}), SITES, "at least one layer"),
        (object(), SITES, "got object"),
        ("vector.pt", SITES, "saves pickles"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            from_steering_vectors(vector, model, site=site)
    with pytest.raises(InvalidInputError, match="after a norm"):
        from_steering_vectors(Vector(layers, "self_attn"), build_model("gemma2"), site=attention)
