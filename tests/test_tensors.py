"""Files of tensors: what is written is read, and nothing else is."""

import hashlib
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.records.tensors import read, read_unchecked, write

META = {"b": [1, 2.5, None], "a": {"é": True}}


@pytest.fixture
def file(tmp_path):
    tensors = {"x": torch.arange(6.0).reshape(2, 3), "y": torch.tensor([1.5, -2.0])}
    return write(tmp_path / "file.safetensors", tensors, kind="test", meta=META)


def refused(path, kind="test", **options):
    with pytest.raises(InvalidInputError) as caught:
        read(path, kind=kind, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool],
)
def test_every_dtype_shape_and_view_comes_back(dtype, tmp_path):
    base = torch.arange(24).reshape(4, 6).to(dtype)
    tensors = {
        "whole": base,
        "again": base,
        "transposed": base.T,
        "strided": base[::2, 1::3],
        "row": base[2],
        "scalar": base[0, 3],
        "none": base[:0],
        "parameter": torch.nn.Parameter(base.clone(), requires_grad=dtype.is_floating_point),
    }
    path = write(tmp_path / "all.safetensors", tensors, kind="test")
    back, meta = read(path, kind="test", finite=True)
    assert meta == {}
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == dtype
        assert torch.equal(back[name], tensor.detach())


def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path):
    firsts = set()
    for extra in range(0, 300, 8):
        path = write(tmp_path / "file", {"x": torch.ones(2)}, kind="test", meta={"a": "b" * extra})
        firsts.add(path.read_bytes()[0])
        assert torch.equal(read(path, kind="test")[0]["x"], torch.ones(2))
    assert 0x80 in firsts


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tensors_of_a_gpu_are_read_on_the_cpu(tmp_path):
    one = torch.randn(3, 4, device="cuda", dtype=torch.bfloat16)
    back, _ = read(write(tmp_path / "gpu", {"a": one, "b": one.T}, kind="test"), kind="test")
    assert torch.equal(back["a"], one.cpu())
    assert torch.equal(back["b"], one.T.cpu())


def test_meta_comes_back_and_equal_content_has_equal_headers(file, tmp_path):
    tensors, meta = read(file, kind="test")
    assert meta == META
    turned = dict(reversed(META.items()))
    other = write(tmp_path / "other", dict(reversed(tensors.items())), kind="test", meta=turned)
    assert read_unchecked(other)[1] == read_unchecked(file)[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.safetensors", "other"]


def test_a_header_of_any_length_is_not_taken_for_a_pickle(tmp_path):
    # Its length comes first in the file, and 0x80 is also how pickles begin.
    first = set()
    for length in range(0, 256, 8):
        meta = {"text": "a" * length}
        path = write(tmp_path / "file", {"x": torch.ones(1)}, kind="test", meta=meta)
        first.add(path.read_bytes()[0])
        assert read(path, kind="test")[1] == meta
    assert 0x80 in first


@pytest.mark.parametrize("bad", [float("nan"), torch.ones(1), {1}])
def test_meta_that_is_not_plain_data_is_refused_before_writing(bad, tmp_path):
    with pytest.raises(InvalidInputError, match="strict JSON"):
        write(tmp_path / "file", {"x": torch.ones(1)}, kind="test", meta={"bad": bad})
    assert not list(tmp_path.iterdir())
    with pytest.raises(RunFolderError, match="cannot write"):
        write(tmp_path / "none" / "file", {"x": torch.ones(1)}, kind="test")


@pytest.mark.parametrize("keep", [0, 5, 50, -1])
def test_a_truncated_file_is_refused(keep, file):
    file.write_bytes(file.read_bytes()[:keep])
    assert "cut short, damaged" in refused(file)


def test_one_changed_byte_of_a_tensor_its_name_or_the_meta_is_refused(file):
    data = file.read_bytes()
    for old, new in ((b"2.5", b"2.6"), (b'"y"', b'"z"'), (data[-2:], data[-2:-1] + b"\1")):
        assert data.count(old) == 1 or old == data[-2:]
        file.write_bytes(data[::-1].replace(old[::-1], new[::-1], 1)[::-1])
        assert "altered after it was written" in refused(file)


def test_nan_is_refused_where_the_caller_wants_finite_numbers(tmp_path):
    for bad in (float("nan"), float("inf")):
        path = write(tmp_path / "file", {"x": torch.tensor([1.0, bad])}, kind="test")
        read(path, kind="test")
        assert "must hold finite numbers, got NaN or infinity in 'x'" in refused(path, finite=True)


def test_another_kind_or_version_is_refused(file, tmp_path):
    assert "must have the format 'ed-interp/other', got 'ed-interp/test'" in refused(file, "other")
    newer = write(tmp_path / "newer", {}, kind="test", version=2)
    with safe_open(newer, framework="pt") as opened:
        writer = opened.metadata()["ed-interp"]
    assert f"version '1' of ed-interp/test, got '2'; install ed-interp {writer}" in refused(newer)
    assert read(newer, kind="test", version=2) == ({}, {})
    plain = tmp_path / "plain"
    save_file({"x": torch.zeros(2)}, plain)
    assert "got None" in refused(plain)
    assert list(read_unchecked(plain)[0]) == ["x"]
    save_file({"x": torch.zeros(2)}, plain, {"format": "ed-interp/test", "version": "1"})
    assert "altered" in refused(plain)


def test_other_formats_are_named(tmp_path):
    assert "does not exist" in refused(tmp_path / "none")
    assert "cannot read" in refused(tmp_path)
    for old in (False, True):
        torch.save({"x": torch.ones(1)}, tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
        assert "got a pickle" in refused(tmp_path / "a.pt")
    for name, data, part in (
        ("a.gguf", b"GGUF\3\0\0\0", "got a GGUF file"),
        ("a.json", b'{"vectors": []}', "not a safetensors file"),
    ):
        (tmp_path / name).write_bytes(data)
        assert part in refused(tmp_path / name)


def test_the_first_direction_files_are_read(tmp_path):
    text, vector = json.dumps(META), torch.tensor([1.0, 2.0])
    digest = hashlib.sha256(text.encode() + b"v(2,)torch.float32" + vector.numpy().tobytes())
    header = {"format": "ed-interp/direction", "version": "1", "provenance": text}
    save_file({"v": vector}, tmp_path / "old", {**header, "sha256": digest.hexdigest()})
    tensors, meta = read(tmp_path / "old", kind="direction")
    assert meta == META
    assert torch.equal(tensors["v"], vector)
