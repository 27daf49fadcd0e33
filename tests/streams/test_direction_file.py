"""Direction files: what is saved is what is loaded, and nothing else is."""

import json

import pytest
import torch
from safetensors.torch import save_file

import ed_interp
from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.streams.direction import Direction
from ed_interp.streams.injection import Add, inject

ONE, TWO = "blocks.0.hook_resid_post", "blocks.2.hook_resid_mid"


@pytest.fixture(scope="module")
def direction(build_model):
    generator = torch.Generator().manual_seed(0)
    vectors = {site: torch.randn(32, generator=generator) for site in (ONE, TWO)}
    made = Direction.of(
        build_model("gpt2"), vectors, method="by hand", data="0af1", settings={"pairs": 3}
    )
    return made - 0.5 * made.unit()


@pytest.fixture
def saved(direction, tmp_path):
    return direction.save(tmp_path / "direction.safetensors")


def test_saved_and_loaded_is_the_same(direction, saved, build_model):
    loaded = Direction.load(saved)
    assert loaded.provenance == direction.provenance
    assert list(loaded.vectors) == list(direction.vectors)
    assert all(torch.equal(loaded[site], direction[site]) for site in (ONE, TWO))
    model = build_model("gpt2").eval()
    logits = []
    for one in (direction, loaded):
        with inject(model, Add(one, coefficient=2.0)), torch.no_grad():
            logits.append(model(torch.tensor([[5, 6, 7]])).logits)
    assert torch.equal(*logits)
    loaded.check(ed_interp.load(model))


def test_a_file_is_not_overwritten_by_accident_and_leaves_no_drafts(direction, saved):
    with pytest.raises(RunFolderError, match="exists; pass another path"):
        direction.save(saved)
    (2 * direction).save(saved, overwrite=True)
    assert torch.equal(Direction.load(saved)[ONE], 2 * direction[ONE])
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]
    with pytest.raises(RunFolderError, match="its folder does not exist"):
        direction.save(saved.parent / "none" / "d.safetensors")


def refused(path):
    with pytest.raises(InvalidInputError) as caught:
        Direction.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("keep", [0, 5, 50, -1, -100])
def test_a_truncated_file_is_refused(keep, saved):
    data = saved.read_bytes()
    saved.write_bytes(data[:keep])
    assert "cut short, damaged" in refused(saved)


def test_an_altered_number_is_noticed(saved):
    data = bytearray(saved.read_bytes())
    data[-3] ^= 1
    saved.write_bytes(bytes(data))
    assert "altered after it was written" in refused(saved)


def test_an_altered_provenance_is_noticed(saved):
    data = saved.read_bytes()
    assert b"0af1" in data
    saved.write_bytes(data.replace(b"0af1", b"0af2"))
    assert "altered after it was written" in refused(saved)


def test_pickles_are_refused_unread(direction, tmp_path):
    for name, options in {
        "new.pt": {},
        "old.pt": {"_use_new_zipfile_serialization": False},
    }.items():
        path = tmp_path / name
        torch.save(dict(direction.vectors), path, **options)
        assert "got a pickle" in refused(path)


def test_other_files_are_told_apart(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.safetensors")
    assert "cannot read" in refused(tmp_path)
    plain = tmp_path / "plain.safetensors"
    save_file({ONE: torch.zeros(32)}, plain)
    assert "must have the format" in refused(plain)
    save_file({ONE: torch.zeros(32)}, plain, {"format": "ed-interp/direction", "version": "99"})
    assert "got '99'" in refused(plain)
    save_file({ONE: torch.zeros(32)}, plain, {"format": "ed-interp/direction", "version": "1"})
    assert "altered" in refused(plain)
    text = tmp_path / "text.json"
    text.write_text(json.dumps({"vectors": []}))
    assert "not a safetensors file" in refused(text)


def test_settings_that_are_no_plain_data_are_refused_before_writing(build_model, tmp_path):
    odd = Direction.of(
        build_model("gpt2"), {ONE: torch.ones(32)}, method="odd", settings={"x": torch.ones(1)}
    )
    with pytest.raises(InvalidInputError, match="strict JSON"):
        odd.save(tmp_path / "odd.safetensors")
    assert not list(tmp_path.iterdir())
