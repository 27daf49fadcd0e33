"""The environment of a run, for its record. No heavy imports."""

from __future__ import annotations

import platform
from typing import Any

# The libraries whose versions can change a number.
LIBRARIES = (
    "transformer-lens",
    "transformers",
    "peft",
    "torch",
    "sae-lens",
    "datasets",
    "einops",
    "accelerate",
)


def installed(name: str) -> str | None:
    """The installed version of a distribution; None if it is not installed."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """Python, the operating system and the versions of the main libraries.

    Without the host's name, so that a run folder can be published. A library that is not installed
    has version None.
    """
    versions = {name: installed(name) for name in ("ed-interp", *LIBRARIES)}
    python, system = platform.python_version(), platform.platform()
    return {"python": python, "platform": system, "versions": versions}
