"""Descriptions in a folder: arrays as safetensors, the rest as JSON, and the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ed_interp.errors import RunFolderError
from ed_interp.probes.dictionaries.description.descriptions import NAMES, FeatureDescriptions
from ed_interp.records import RunFolder, environment, write_bytes, write_json, write_text

FORMAT = "ed-interp/feature-descriptions"
VERSION = 1
_ARRAYS = "descriptions.safetensors"
_RECORD = "run.json"
PAGE = "report.html"


def save_descriptions(found: FeatureDescriptions, folder: Path, *, overwrite: bool) -> Path:
    """See :meth:`FeatureDescriptions.save`."""
    settings = {"kind": FORMAT, **found.settings}
    with RunFolder.open(folder, settings, overwrite=overwrite, resumable=False) as run:
        write_descriptions(found, run.folder)
    return run.path


def write_descriptions(found: FeatureDescriptions, folder: Path) -> None:
    """The files of :func:`save_descriptions`, into a folder that exists."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(column) for name, column in found.columns.items()}
    write_bytes(folder / _ARRAYS, save(arrays))
    record = {
        "format": FORMAT,
        "version": VERSION,
        "model": found.model,
        "site": found.site,
        "architecture": found.architecture,
        "tokens": found.tokens,
        "names": list(found.names),
        "token_texts": list(found.token_texts),
        "settings": found.settings,
        "environment": environment(),
    }
    write_json(folder / _RECORD, record)
    write_text(folder / PAGE, found.page())


def load_descriptions(folder: Path) -> FeatureDescriptions:
    """See :meth:`FeatureDescriptions.load`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = folder.expanduser()
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        if record.get("format") != FORMAT or record.get("version") != VERSION:
            raise RunFolderError(
                f"{folder} holds {record.get('format')!r} version {record.get('version')!r}, "
                f"expected {FORMAT!r} version {VERSION}; name a folder that describe wrote"
            )
        columns = dict(load_file(folder / _ARRAYS))
        unknown = sorted(set(columns) - set(NAMES))
        if unknown or len({len(column) for column in columns.values()}) != 1:
            raise RunFolderError(f"{folder}/{_ARRAYS} does not fit its record; describe again")
        return FeatureDescriptions(
            model=record["model"],
            site=record["site"],
            architecture=record["architecture"],
            tokens=record["tokens"],
            columns=columns,
            names=tuple(record["names"]),
            token_texts=tuple(record["token_texts"]),
            settings=record["settings"],
        )
    except FileNotFoundError as error:
        raise RunFolderError(
            f"{folder} holds no feature descriptions ({error.filename})"
        ) from error
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        raise RunFolderError(
            f"{folder} is damaged ({' '.join(str(error).split())[:120]})"
        ) from error
