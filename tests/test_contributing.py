"""The contributor's guide, followed to the letter: its estimator and its probe are made and run."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ed_interp
from ed_interp.errors import InvalidInputError

GUIDE = Path(ed_interp.__file__).parents[1] / ".github" / "CONTRIBUTING.md"
pytestmark = pytest.mark.skipif(not GUIDE.exists(), reason="needs the source checkout")

PACKAGES = {
    "probes": "ed_interp.probes",
    "probes/emergence/estimators": "ed_interp.probes.emergence.estimators",
    "ed_interp/cli": "ed_interp.cli",
}


@pytest.fixture
def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The files of the guide in a folder that the packages reach, and its one line in HOMES."""
    from ed_interp.cli.app import VERBS, app
    from ed_interp.results import HOMES

    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", GUIDE.read_text("utf-8"), flags=re.S)
    assert len(blocks) == 7
    for path, code in blocks:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    for folder, name in PACKAGES.items():
        package = importlib.import_module(name)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / folder)])
    home = re.search(r'`"(norms)": "([\w.]+)"` in `HOMES`', GUIDE.read_text("utf-8"))
    assert home is not None
    monkeypatch.setitem(HOMES, home[1], home[2])
    verb = re.search(r'`"(norms)": "(.*?)"` in\s+`VERBS`', GUIDE.read_text("utf-8"))
    assert verb is not None
    monkeypatch.setitem(VERBS, verb[1], verb[2])
    commands, modules = list(app.registered_commands), set(sys.modules)
    yield
    app.registered_commands[:] = commands
    for name in set(sys.modules) - modules:
        if "norms" in name or name.endswith("estimators.plugin"):
            del sys.modules[name]


def test_the_estimator_works_by_its_name(followed: None):
    import torch

    from ed_interp import mutual_information
    from ed_interp.probes.emergence.estimators import available_estimators, get_estimator

    assert "plugin" in available_estimators()
    x = torch.tensor([0.0, 0, 1, 1, 2, 2, 3, 3])[:, None].repeat(20, 3)
    result = mutual_information(x, x % 2, estimator="plugin")
    assert result.bits == pytest.approx(1.0)
    assert result.settings == {"estimator": "plugin", "pseudo_count": 0.0}
    half = (x[:, 0] < 2).float()  # rows of weight 0 have no effect
    assert mutual_information(x, x, weights=half, estimator="plugin").bits == pytest.approx(1.0)
    with pytest.raises(InvalidInputError, match="NaN"):
        mutual_information(x / 0, x, estimator="plugin")
    assert get_estimator("plugin", pseudo_count=0.5).pseudo_count == 0.5
    with pytest.raises(ValueError, match="pseudo_count must be 0 or greater, got -1"):
        get_estimator("plugin", pseudo_count=-1)


def test_the_probe_is_a_verb_with_a_result(
    followed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    from ed_interp import load_any
    from ed_interp.cli import main

    run = tmp_path / "RUN"
    arguments = ["norms", "--task", "sentiment", "--prompts", "8", "--out", str(run), "--json"]
    monkeypatch.setattr(sys, "argv", ["ed-interp", *arguments])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 5
    assert rows[-1]["mean"] > 0
    assert rows[-1]["untrained"] is not None
    result = load_any(run)
    assert result.settings["options"]["prompts"] == 8
    assert (run / "report.html").stat().st_size > 1e6
    assert (run / "norms.png").exists()
    assert "norm" in result.headline()
