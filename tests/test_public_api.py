"""The public API: documented, lazy, and as light to import as it says."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ed_interp

README = Path(__file__).parents[1] / "README.md"


def test_every_exported_name_is_there():
    assert ed_interp.__version__
    for name in ed_interp.__all__:
        assert getattr(ed_interp, name) is not None
    assert set(ed_interp.__all__) <= set(dir(ed_interp))
    with pytest.raises(AttributeError, match="emergance"):
        _ = ed_interp.emergance


def test_the_readme_lists_the_public_api():
    text = README.read_text("utf-8")
    table = text[text.index("## The Python API") : text.index("### Any model")]
    listed = set(re.findall(r"^\| `(?:ed_interp\.)?(\w+)", table, flags=re.M))
    assert listed == set(ed_interp.__all__)


def test_every_public_name_is_documented():
    for name in ed_interp.__all__:
        value = getattr(ed_interp, name)
        if callable(value):
            assert inspect.getdoc(value), name


def test_import_is_light():
    """No torch, nor anything else that takes time; a limit on work, not on seconds."""
    code = (
        "import sys; import ed_interp; "
        "heavy = {'torch', 'transformers', 'numpy', 'pandas', 'plotly', 'scipy', 'sae_lens', "
        "'transformer_lens', 'peft', 'datasets'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
