"""`Activations`: states of every prompt, shot count and site, in memory or in a folder.

A folder holds safetensors shards, one per batch, and an ``index.json`` with the request. A shard is
written under a temporary name and renamed, so every shard is complete, and a run that was killed
continues where it stopped. Memory: the shards of one shot count at a time.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import CaptureError, RunFolderError
from ed_interp.models.sites import Site
from ed_interp.processes import gather, wait_for_all
from ed_interp.records.files import write_bytes, write_json
from ed_interp.streams.paths import BatchReading

_SCORES = ("logprob", "correct", "rank")


@dataclasses.dataclass(frozen=True)
class Activations:
    """Residual-stream states at the last token of each k-shot sequence."""

    sites: tuple[Site, ...]
    shots: tuple[int, ...]
    prompts: int
    store: Store = dataclasses.field(repr=False)
    path: str = "packed"
    """How they were read: ``packed``, ``prefix``, ``separate`` or ``nested``."""
    discrepancy: float | None = None
    """Largest relative difference from separate passes on the prompt checked; None if unchecked."""

    def at(self, shots: int) -> Float[Tensor, "prompt site d_model"]:
        """States of all prompts and sites at one shot count, which was read; float32."""
        if shots not in self.shots:
            raise CaptureError(f"{shots} shots were not read; choose from: {list(self.shots)}")
        return self._collect((slice(None), self.shots.index(shots)))

    def __getitem__(self, site: str | Site) -> Float[Tensor, "prompt pos d_model"]:
        """States of one site, which was read; the middle axis is the shot counts, in order."""
        name = site.name if isinstance(site, Site) else site
        names = [known.name for known in self.sites]
        if name not in names:
            raise CaptureError(f"{name} was not read; choose from: {', '.join(names)}")
        return self._collect((slice(None), slice(None), names.index(name)))

    def _collect(self, part: tuple[slice | int, ...]) -> Tensor:
        """Of every shard the part of its states, ``prompt shot site d_model``."""
        # Batches are sorted by length, so every shard brings the indices of its prompts.
        states: Tensor | None = None
        for shard in self.store.shards():
            piece = shard["states"][part]
            if states is None:
                states = torch.empty(self.prompts, *piece.shape[1:])
            states[shard["prompts"][:]] = piece
        assert states is not None
        return states

    def scores(self) -> dict[str, Float[Tensor, "prompt shot"]] | None:
        """``logprob`` (nats), ``correct`` (0 or 1), ``rank`` per prompt; None without answers."""
        tables = {name: torch.empty(self.prompts, len(self.shots)) for name in _SCORES}
        for shard in self.store.shards():
            if "logprob" not in shard:
                return None
            for name, table in tables.items():
                table[shard["prompts"][:]] = shard[name][:].float()
        return tables


class Store:
    """Shards in memory; :class:`FolderStore` keeps them in a folder."""

    def __init__(self) -> None:
        self._shards: dict[int, dict[str, Tensor]] = {}

    def has(self, number: int) -> bool:
        """Whether a shard exists."""
        return number in self._shards

    def put(self, number: int, rows: Sequence[int], reading: BatchReading) -> None:
        """Keep the reading of the prompts ``rows`` as shard ``number``."""
        self._shards[number] = _tensors(rows, reading)

    def shards(self) -> Iterator[Mapping[str, Any]]:
        """The tensors of each shard by name, of which an index gives a part."""
        yield from (self._shards[number] for number in sorted(self._shards))

    def exchange(self) -> None:
        """Give every process the shards of all processes."""
        for part in gather(self._shards):
            self._shards |= part


class FolderStore(Store):
    """Shards in a folder, resumable."""

    def __init__(self, folder: Path, request: dict[str, Any]) -> None:
        super().__init__()
        self.folder = folder
        index = folder / "index.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            known = json.loads(index.read_text("utf-8")) if index.exists() else None
        except json.JSONDecodeError as error:
            raise RunFolderError(f"{index} is damaged ({error.msg}); remove {folder}") from error
        except OSError as error:
            raise RunFolderError(f"cannot use {folder} ({error.strerror or error})") from error
        if known is None:
            write_json(index, request)
        elif known != request:
            raise RunFolderError(
                f"{folder} must hold activations of the same request, got others (model, prompts, "
                "sites or settings differ); use another folder or remove it"
            )

    def _file(self, number: int) -> Path:
        return self.folder / f"shard-{number:06d}.safetensors"

    def has(self, number: int) -> bool:
        return self._file(number).exists()

    def put(self, number: int, rows: Sequence[int], reading: BatchReading) -> None:
        from safetensors.torch import save

        # Not records.tensors: to check its hash, whole shards would be read where parts are, and
        # at 1 GB/s and less it would slow down captures on a GPU (on a CPU by 2%).
        data = save({name: tensor.contiguous() for name, tensor in _tensors(rows, reading).items()})
        write_bytes(self._file(number), data)

    def shards(self) -> Iterator[Mapping[str, Any]]:
        from safetensors import SafetensorError, safe_open

        for file in sorted(self.folder.glob("shard-*.safetensors")):
            try:
                with safe_open(file, framework="pt") as shard:
                    # An index reads that part of the file only, so all shots are never in memory.
                    yield {name: shard.get_slice(name) for name in shard.keys()}  # noqa: SIM118
            except SafetensorError as error:
                raise RunFolderError(
                    f"{file} is damaged ({error}); remove it and resume"
                ) from error

    def exchange(self) -> None:
        wait_for_all()


def _tensors(rows: Sequence[int], reading: BatchReading) -> dict[str, Tensor]:
    scores = {name: getattr(reading, name) for name in _SCORES if reading.logprob is not None}
    return {"prompts": torch.tensor(rows), "states": reading.states, **scores}
