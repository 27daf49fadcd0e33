"""An estimator of another package, installed for real, is found by name everywhere."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "third_party_estimator"

PROGRAM = """
import json, torch
from ed_interp.probes.emergence.calibration import calibrate
from ed_interp.probes.emergence.estimators import available_estimators, mutual_information
g = torch.Generator().manual_seed(0)
x = torch.randn(4000, 2, generator=g)
y = 0.8 * x + 0.6 * torch.randn(4000, 2, generator=g)
found = mutual_information(x, y, estimator="correlation", column=1)
checked = calibrate("correlation", n=500, d=1, bits=(0, 1), families=("gaussian",), seeds=1,
                    checks=False)
print(json.dumps({"names": available_estimators(), "bits": found.bits,
                  "settings": found.settings, "band": checked.to_dict()["bands"]["gaussian"]}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built and installed by pip into a folder of its own, without a network."""
    room = tmp_path_factory.mktemp("third-party")
    source, target = room / "source", room / "site"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True)
    if done.returncode and ("No module named pip" in done.stderr or "setuptools" in done.stderr):
        pytest.skip("pip and setuptools are not in this environment")
    assert done.returncode == 0, done.stderr
    return target


def test_an_installed_estimator_is_found_and_used(installed: Path) -> None:
    paths = [str(installed), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "correlation" in found["names"]
    assert found["settings"] == {"column": 1}
    assert found["bits"] == pytest.approx(0.737, abs=0.06)
    assert found["band"] == pytest.approx(1.0)
