"""Run folders that are never half-written, and the environment of a run.

A run works in a hidden sibling, ``.NAME.partial``, which takes its place under NAME by one rename
when everything is there::

    with RunFolder.open("runs/country", settings, overwrite=False) as run:
        if not run.resumed:
            ...
        write_json(run.folder / "table.json", table)
    run.path  # complete, or it does not exist

After an exception, Ctrl-C or a kill the hidden folder stays, and a run with equal settings
continues in it. Every file is written under a temporary name and then renamed, so a resumed run
finds complete files only. Cost: each write is forced to disk (milliseconds); no heavy imports.
"""

from ed_interp.records.files import write_bytes, write_json, write_parquet, write_text
from ed_interp.records.folders import (
    LIBRARIES,
    SETTINGS_FORMAT,
    RunFolder,
    environment,
    next_run_path,
)

__all__ = ["LIBRARIES", "SETTINGS_FORMAT", "RunFolder", "environment", "next_run_path"]
__all__ += ["write_bytes", "write_json", "write_parquet", "write_text"]
