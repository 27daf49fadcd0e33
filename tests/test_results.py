"""What every kind of result holds to: saved and loaded equal, and nothing wrong read silently."""

import dataclasses
import json
import shutil
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest

from ed_interp import results
from ed_interp.charts.spec import Chart, Line, Panel
from ed_interp.errors import InvalidInputError, RunFolderError, UnknownNameError
from ed_interp.options import Seeded, hints_of
from ed_interp.records.reading import row_fields
from ed_interp.results import COMMAND, HOMES, Result, keep, load_any
from ed_interp.tables import Table


@dataclasses.dataclass(frozen=True, slots=True)
class DepthRow:
    layer: int
    bits: float
    twin: float | None = None
    flags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Depths(Result):
    KIND = "depths"
    SIDE = ("samples",)

    model: str
    rows: tuple[DepthRow, ...]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    samples: Any = None

    def title(self) -> str:
        return f"Depths of {self.model}"

    def headline(self) -> str:
        return f"{len(self.rows)} blocks were measured."

    def tables(self) -> list[Table]:
        cells = [(str(row.layer), f"{row.bits:.2f}") for row in self.rows]
        return [Table(name="depths", caption="Bits", heads=("block", "bits"), rows=cells)]

    def charts(self) -> list[Chart]:
        x, y = [row.layer for row in self.rows], [row.bits for row in self.rows]
        panel = Panel(x="block", y="bits", marks=[Line(name="bits", x=x, y=y)])
        return [Chart(name="depths", title=self.title(), panels=[panel])] if x else []


DEPTHS = Depths("m", (DepthRow(0, 0.5), DepthRow(1, 2.0, None, ("few",))), {"options": {"a": 1}})


def made(hint: Any) -> Any:
    """Some value of a type, so that every kind of result can be tried without running it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return made(next(kind for kind in arguments if kind is not type(None)))
    if origin is Literal:
        return arguments[0]
    if origin is tuple:
        kinds = arguments[:1] if arguments[-1:] == (Ellipsis,) else arguments
        return tuple(made(kind) for kind in kinds)
    if origin is list:
        return [made(arguments[0])]
    if origin in (dict, results.Mapping):
        return {"key" if arguments[0] is str else made(arguments[0]): made(arguments[1])}
    if dataclasses.is_dataclass(hint):
        return sample(hint)
    return {int: 3, float: 0.5, str: "text", bool: True, Any: "anything"}[hint]


def sample(kind: Any) -> Any:
    """An instance with a value in every field but those that lie beside the JSON."""
    hints, side = hints_of(kind), getattr(kind, "SIDE", ())
    fields = [field for field in dataclasses.fields(kind) if field.name not in side]
    return kind(**{field.name: made(hints[field.name]) for field in fields}, **beside(kind))


def beside(kind: Any) -> dict[str, Any]:
    """Tables that some results cannot be without."""
    if getattr(kind, "KIND", "") != "dictionary-measurement":
        return {}
    import pandas as pd

    names = ("density", "mean_active", "largest", "decoder_norm", "monosemanticity", "control")
    columns = {"feature": [0], "predictor": ["a"], **{name: [0.5] for name in names}}
    return {"features": pd.DataFrame(columns)}


def plain(result: Result) -> Result:
    """Without the tables beside it, which have no equality of their own."""
    return dataclasses.replace(result, **dict.fromkeys(beside(type(result))))


def written(result: Result, folder: Path) -> dict[str, Any]:
    """Write a result to ``folder`` without pictures or page; returns what its JSON holds."""
    folder.mkdir(exist_ok=True)
    result.write_record(folder)
    data: dict[str, Any] = json.loads((folder / result.FILE).read_text())
    return data


kinds = pytest.mark.parametrize("kind", sorted(HOMES))


@kinds
def test_saved_and_loaded_equal(kind: str, tmp_path: Path):
    result = sample(results._class_of(kind))
    written(result, tmp_path)
    assert plain(type(result).load(tmp_path)) == plain(result)
    assert plain(load_any(tmp_path)) == plain(result)
    assert type(result).from_dict(result.to_dict()) == plain(result)
    assert isinstance(result.settings, dict)


@kinds
def test_tampered_files_are_refused_with_the_place(kind: str, tmp_path: Path):
    result = sample(results._class_of(kind))
    data = written(result, tmp_path)
    file = tmp_path / result.FILE

    def refused(changed: Any, *words: str) -> None:
        file.write_text(changed if isinstance(changed, str) else json.dumps(changed))
        with pytest.raises(RunFolderError) as error:
            type(result).load(tmp_path)
        assert "\n" not in str(error.value)
        for word in (result.FILE, *words):
            assert word in str(error.value)

    refused({**data, "surplus": 1}, "surplus", "unknown field")
    refused({**data, "version": result.VERSION + 1}, "install")
    refused({**data, "format": "ed-interp/other"}, "other")
    refused({**data, "settings": 3}, "settings")
    refused(json.dumps(data)[:-20])
    refused(json.dumps({**data, "settings": {"a": float("nan")}}), "NaN")
    refused([1], "list")
    for name, value in _wrong_values(type(result), data):
        refused({**data, name: value}, name)
    refused({**data, "settings": {"a": 1}}, "sha256")  # right in type, but not what was written


def _wrong_values(kind: type[Result], data: dict[str, Any]) -> list[tuple[str, Any]]:
    """For every number, text and row of the data, what must not pass for it."""
    wrong: list[tuple[str, Any]] = []
    hints = hints_of(kind)
    for name, value in data.items():
        if name not in hints or name == "settings" or hints[name] is Any:
            continue
        if isinstance(value, bool):
            wrong.append((name, 1))
        elif isinstance(value, (int, float)):
            wrong += [(name, True), (name, "3")]
        elif isinstance(value, str) and value == "text":
            wrong.append((name, 3))
        elif name in row_fields(kind) and value:
            wrong += [(name, [{**value[0], "surplus": 1}]), (name, [3]), (name, value[0])]
    return wrong


def test_a_result_is_a_folder(tmp_path: Path):
    import pandas as pd

    result = dataclasses.replace(DEPTHS, samples=pd.DataFrame({"bits": [0.5, 0.25]}))
    path = result.save(tmp_path / "RUN")
    names = {file.name for file in path.iterdir()}
    assert names >= {"run.json", "depths.parquet", "samples.parquet", "depths.png", "report.html"}
    again = Depths.load(path)
    assert dataclasses.replace(again, samples=None) == DEPTHS
    assert again.samples["bits"].tolist() == [0.5, 0.25]
    kept = pd.read_parquet(path / "depths.parquet")
    assert kept["layer"].tolist() == [0, 1]
    assert kept["flags"][1].tolist() == ["few"]
    with pytest.raises(RunFolderError, match="exists"):
        result.save(path)
    assert result.save(path, overwrite=True) == path


def test_columns_have_their_types_without_values(tmp_path: Path):
    import pyarrow.parquet as pq

    DEPTHS.save(tmp_path / "RUN")
    schema = pq.read_schema(tmp_path / "RUN" / "depths.parquet")
    assert str(schema.field("twin").type) == "double"
    assert str(schema.field("flags").type) == "list<element: string>"


def test_nan_is_refused_before_there_is_a_folder(tmp_path: Path):
    with pytest.raises(InvalidInputError, match="JSON"):
        Depths("m", (DepthRow(0, float("nan")),)).save(tmp_path / "RUN")
    assert list(tmp_path.iterdir()) == []


def test_frames_and_figures():
    frame = DEPTHS.to_frame()
    assert list(frame.columns) == ["layer", "bits", "twin", "flags"]
    assert frame["bits"].tolist() == [0.5, 2.0]
    assert DEPTHS.to_frame("rows").equals(frame)
    with pytest.raises(UnknownNameError, match="row"):
        DEPTHS.to_frame("row")
    assert DEPTHS.plot().data[0].y == (0.5, 2.0)
    assert DEPTHS.plot("depths", theme="dark").layout.paper_bgcolor != "#ffffff"
    with pytest.raises(UnknownNameError, match="depths"):
        DEPTHS.plot("depth")
    with pytest.raises(InvalidInputError, match="rows to be drawn"):
        dataclasses.replace(DEPTHS, rows=()).plot()


def test_a_notebook_shows_it_without_a_script():
    html = DEPTHS._repr_html_()
    assert "2 blocks were measured." in html
    assert "<svg" in html
    assert "<script" not in html
    assert "0.50" in html


def test_a_page_is_complete_and_safe():
    from ed_interp.report import render

    unsafe = dataclasses.replace(DEPTHS, model="<script>alert(1)</script>")
    page = render(unsafe, {"python": "3"})
    assert "<script>alert" not in page
    assert "Content-Security-Policy" in page
    assert "default-src 'none'" in page
    assert 'id="depths-light"' in page
    assert 'id="depths-dark"' in page
    assert "http://" not in page.split("<script>")[0].replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "there is no run at"),
        (lambda folder: folder.write_text("x"), "must be a run folder, got a file"),
        (lambda folder: folder.mkdir(), "got one without run.json"),
        (lambda folder: folder.with_name(".RUN.partial").mkdir(), "was interrupted"),
    ],
)
def test_what_is_not_a_run(prepare, message: str, tmp_path: Path):
    prepare(tmp_path / "RUN")
    for load in (Depths.load, load_any):
        with pytest.raises(RunFolderError, match=message):
            load(tmp_path / "RUN")


def test_an_unknown_kind_lists_what_there_is(tmp_path: Path):
    written(DEPTHS, tmp_path)
    with pytest.raises(RunFolderError, match=r"emergence.*got format 'ed-interp/depths'"):
        load_any(tmp_path)


def test_a_run_is_resumed_and_recorded(tmp_path: Path):
    calls = []

    def make(folder: Path | None) -> Depths:
        calls.append(folder)
        if folder is not None:
            folder.mkdir(exist_ok=True)
            if not (folder / "half").exists():
                (folder / "half").write_text("done")
                raise KeyboardInterrupt
        return dataclasses.replace(DEPTHS, settings={})

    options, out = Seeded(seed=4), tmp_path / "RUN"
    with pytest.raises(KeyboardInterrupt):
        keep(make, options=options, out=out)
    assert not out.exists()
    with pytest.raises(RunFolderError, match="other settings"):
        keep(make, options=Seeded(seed=5), out=out)
    token = COMMAND.set("ed-interp depths --seed 4")
    try:
        result = keep(make, options=options, out=out)
    finally:
        COMMAND.reset(token)
    assert result.settings == {"options": {"seed": 4}, "command": "ed-interp depths --seed 4"}
    assert Depths.load(out) == result
    assert not (out / "work").exists()
    assert len(calls) == 2
    assert keep(make, options=options).settings == {"options": {"seed": 4}}
    shutil.rmtree(out)


def test_intermediate_work_can_be_kept(tmp_path: Path):
    def make(folder: Path | None) -> Depths:
        assert folder is not None
        folder.mkdir()
        (folder / "states").write_text("1")
        return DEPTHS

    keep(make, options=Seeded(), out=tmp_path / "RUN", keep_work=True)
    assert (tmp_path / "RUN" / "work" / "states").exists()
