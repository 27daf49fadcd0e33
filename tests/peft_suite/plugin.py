"""Pytest plugin: runs the LoRA cases of PEFT's own tests with another method in LoRA's place.

PEFT parametrizes its tests with ``(config class, options)``. Of these the plugin keeps the LoRA
cases whose options have a counterpart here and whose layers are linear; with
``PEFT_SUITE_METHOD=lora`` they run as they are (the control), otherwise with the class replaced
and the options translated.
"""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import pytest

if "diffusers" not in sys.modules:
    try:
        import diffusers  # noqa: F401
    except ImportError:
        # Imported by PEFT's common tests for their diffusion models, which are not run here.
        stub: Any = types.ModuleType("diffusers")
        stub.StableDiffusionPipeline = type("StableDiffusionPipeline", (), {})
        sys.modules["diffusers"] = stub

from peft import LoraConfig

from ed_interp.adapters.bias_injection import BiasInjectionConfig

METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    # As it comes; with feedback read from the output; without anything but the low-rank part.
    "bias-injection": {},
    "bias-injection-output": {"feedback": "output", "use_bias": False},
    "bias-injection-static": {"n_nodes": 0, "use_bias": False},
}
RENAMED = {"lora_dropout": "dropout", "init_lora_weights": "init_weights"}
KEPT = {
    "r", "lora_alpha", "target_modules", "exclude_modules", "modules_to_save", "task_type",
    "layers_to_transform", "layers_pattern",
}  # fmt: skip
NO_LINEAR = ("Conv", "Embedding", "MHA", "MultiheadAttention", "Emb")
CLASS_ARGUMENTS = {"config_cls", "config_class"}
# Files whose tests without parameters are about every method.
GENERAL = ("test_config.py",)

method = os.environ.get("PEFT_SUITE_METHOD", "bias-injection")


def translated(options: dict[str, Any]) -> dict[str, Any] | None:
    """LoRA's options as this method's, or None if there is no counterpart."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if name == "bias" and value == "none":
            continue
        if name in RENAMED and (name != "init_lora_weights" or isinstance(value, bool)):
            found[RENAMED[name]] = value
        elif name in KEPT:
            found[name] = value
        else:
            return None
    return found


def converted(values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """One case with the class replaced, or None if it is not taken over."""
    if not any(value is LoraConfig for value in values):
        return None
    if any(isinstance(value, str) and any(n in value for n in NO_LINEAR) for value in values):
        return None
    found: list[Any] = []
    for value in values:
        if isinstance(value, dict):
            options = translated(value)
            if options is None:
                return None
            found.append(value if method == "lora" else {**options, **METHODS[method]})
        elif value is LoraConfig and method != "lora":
            found.append(BiasInjectionConfig)
        elif value == "lora" and method != "lora":
            found.append("bias_injection")
        else:
            found.append(value)
    return tuple(found)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marks = metafunc.definition.own_markers
    for index, mark in enumerate(marks):
        if mark.name != "parametrize":
            continue
        names = mark.args[0]
        names = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
        if not CLASS_ARGUMENTS & set(names):
            continue
        cases = []
        for case in mark.args[1]:
            values = case.values if hasattr(case, "values") and hasattr(case, "marks") else case
            several = len(names) > 1
            taken = converted(tuple(values) if several else (values,))
            if taken is not None:
                cases.append(taken if several else taken[0])
        marks[index] = pytest.mark.parametrize(mark.args[0], cases).mark


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests that are about a method of their own."""
    kept, dropped = [], []
    for item in items:
        arguments = set(getattr(getattr(item, "callspec", None), "params", {}))
        general = item.path.name in GENERAL and "config0" not in arguments
        own = "lora" in item.nodeid.partition("::")[2].lower() or "_remote" in item.name
        taken = bool(CLASS_ARGUMENTS & arguments) or (general and not own)
        (kept if taken else dropped).append(item)
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept
