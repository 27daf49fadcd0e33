"""The house: every package is declared, the arrows point one way, nothing is left loose."""

import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ed_interp

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "pyproject.toml"
source_checkout = pytest.mark.skipif(
    not PROJECT.exists() or ROOT not in Path(ed_interp.__file__).parents,
    reason="needs the source checkout that is being imported",
)


def packages() -> set[str]:
    found = {"ed_interp"}
    for info in pkgutil.walk_packages(ed_interp.__path__, "ed_interp."):
        if info.ispkg:
            found.add(info.name)
    return found


@source_checkout
def test_every_package_is_declared():
    # An undeclared folder works from the checkout and is missing from the wheel.
    declared = tomllib.loads(PROJECT.read_text("utf-8"))["tool"]["setuptools"]["packages"]
    assert set(declared) == packages()
    assert len(declared) == len(set(declared))


@source_checkout
def test_every_folder_of_modules_is_a_package():
    roots = [ROOT / name for name in ("ed_interp", "probes", "adapters", "eval")]
    for root in roots:
        for file in root.rglob("*.py"):
            if "__pycache__" not in file.parts:
                assert (file.parent / "__init__.py").exists(), file.parent


@source_checkout
def test_the_top_level_is_fixed():
    allowed = {"ed_interp", "probes", "adapters", "eval", "tests"}
    allowed |= {"pyproject.toml", "README.md", "LICENSE"}
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    tops = {Path(line).parts[0] for line in listed.stdout.splitlines()}
    assert {top for top in tops if not top.startswith(".")} <= allowed


@source_checkout
@pytest.mark.parametrize("room", ["probes", "adapters", "eval"])
def test_rooms_are_links_into_the_package(room):
    link = ROOT / "ed_interp" / room
    assert link.is_symlink()
    assert link.resolve() == ROOT / room


@source_checkout
def test_import_arrows():
    pytest.importorskip("importlinter", reason="import-linter comes with the dev extra")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


@source_checkout
def test_arrows_in_the_source():
    """The same arrows without import-linter: what each room may import at all."""
    forbidden = {
        "probes": ("adapters", "eval", "cli"),
        "adapters": ("probes", "eval", "cli"),
        "eval": ("cli",),
        "ed_interp/streams": ("probes", "adapters", "eval", "cli"),
        "ed_interp/models": ("probes", "adapters", "eval", "cli"),
        "ed_interp/prompts": ("probes", "adapters", "eval", "cli"),
        "ed_interp/records": ("probes", "adapters", "eval", "cli"),
        "ed_interp/figures": ("probes", "adapters", "eval", "cli"),
    }
    for folder, rooms in forbidden.items():
        for file in (ROOT / folder).rglob("*.py"):
            text = file.read_text("utf-8")
            code = re.sub(r"if TYPE_CHECKING:\n(?:    .*\n|\n)+", "", text)
            for room in rooms:
                assert not re.search(rf"(from|import) ed_interp\.{room}\b", code), (file, room)


@source_checkout
def test_nothing_reads_pickles_or_runs_hub_code():
    for root in ("ed_interp", "probes", "adapters", "eval"):
        for file in (ROOT / root).rglob("*.py"):
            text = file.read_text("utf-8")
            assert "import pickle" not in text, file
            assert not re.search(r"torch\.load\(", text), file
            assert "trust_remote_code=True" not in text.replace("``trust_remote_code=True``", "")
