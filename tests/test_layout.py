"""The house: every package is declared, the arrows point one way, nothing is left loose."""

import ast
import pkgutil
import re
import subprocess
import sys
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
def test_the_wheel_has_every_package():
    # Found through the three links; a folder that is missed works from the checkout only.
    setuptools = pytest.importorskip("setuptools", reason="comes with pip, not with every Python")
    found = setuptools.find_packages(str(ROOT), include=["ed_interp*"])
    assert set(found) == packages()


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


def imports() -> dict[str, set[str]]:
    """Every module and what it imports anywhere in its text, type-only imports included."""
    modules = {}
    for info in pkgutil.walk_packages(ed_interp.__path__, "ed_interp."):
        assert info.module_finder is not None
        spec = info.module_finder.find_spec(info.name, None)
        assert spec is not None
        assert spec.origin is not None
        modules[info.name] = Path(spec.origin)
    graph: dict[str, set[str]] = {}
    for name, file in modules.items():
        targets: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                # A name is a module of its own, or something that the module before it holds.
                full = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
                targets |= {name if name in modules else node.module for name in full.values()}
            elif isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
        graph[name] = {target for target in targets if target in modules} - {name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Modules that can reach themselves, in groups that can reach each other."""
    reach = {name: set(targets) for name, targets in graph.items()}
    changed = True
    while changed:
        changed = False
        for targets in reach.values():
            wider = targets.union(*(reach[target] for target in targets))
            if wider > targets:
                targets |= wider
                changed = True
    loops = {name for name, targets in reach.items() if name in targets}
    return [{other for other in loops if name in reach[other]} for name in loops]


def test_circles_are_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}] * 3
    assert circles({"a": {"b"}, "b": set()}) == []


def test_no_import_circle():
    assert circles(imports()) == []


ROOMS = ("probes", "adapters", "eval", "cli")


def test_arrows_in_the_source():
    """cli -> eval -> adapters, probes -> spine, whatever kind of import it is."""
    allowed = {"cli": set(ROOMS), "eval": {"probes", "adapters", "eval"}}
    for module, targets in imports().items():
        if module == "ed_interp.__main__":
            continue
        room = module.split(".")[1]
        may = allowed.get(room, {room}) if room in ROOMS else set()
        for target in targets:
            other = target.split(".")[1]
            assert other not in ROOMS or other in may, (module, target)


@source_checkout
def test_nothing_reads_pickles_or_runs_hub_code():
    for root in ("ed_interp", "probes", "adapters", "eval"):
        for file in (ROOT / root).rglob("*.py"):
            text = file.read_text("utf-8")
            assert "import pickle" not in text, file
            assert not re.search(r"torch\.load\(", text), file
            assert "trust_remote_code=True" not in text.replace("``trust_remote_code=True``", "")
