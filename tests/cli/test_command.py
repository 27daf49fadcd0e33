"""From an options class to a command: flags, values, ranges, and one line for each mistake."""

import dataclasses
import importlib
import inspect
from pathlib import Path
from typing import Literal

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from ed_interp.cli import show
from ed_interp.cli.command import NEW_FILE, RUN_FOLDER, Output, command
from ed_interp.errors import InvalidInputError
from ed_interp.options import MEASURE, MODEL, RUNNING, Seeded, option
from ed_interp.probes.dictionaries.results import FeatureEmergence
from ed_interp.probes.dictionaries.rows import FeatureEmergenceRow
from ed_interp.tables import Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depths(Seeded):
    shots: tuple[int, ...] | None = option(None, "Shot counts.", MEASURE, min=0)
    rates: tuple[float, ...] = option((0.001, 0.01), "Rates.", MEASURE, above=0)
    site: tuple[str, ...] = option((), "Sites.", MEASURE)
    blocks: tuple[int, ...] = option((), "Blocks.", MEASURE, min=0)
    prompt: tuple[str, ...] = option((), "Prompts.", MEASURE, whole=True)
    level: float = option(0.95, "Level.", MEASURE, above=0, below=1)
    kind: Literal["macro", "micro"] = option("macro", "Term.", MEASURE)
    untrained: bool = option(True, "Also the untrained twin.", MODEL)
    profile: bool = option(False, "Also the profile.", MODEL)
    folder: Path = option(help="Folder.", argument=True)


def run(*arguments: str, out=RUN_FOLDER):
    """Parse arguments; returns what the verb received."""
    app, seen = typer.Typer(), []

    @command(app, "depths", Depths, out=out)
    def depths(options: Depths, output: Output) -> None:
        """Depths of a model."""
        seen.append((options, output))

    @app.callback()
    def main() -> None:
        """So that the verb has a name."""

    result = CliRunner().invoke(app, ["depths", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return (*seen[0], result) if seen else (None, None, result)


def test_values_arrive_as_the_types_of_their_fields():
    options, output, _ = run(
        "F,G", "--shots", "0-2,7", "--shots", "9", "--rates", "0.5", "--site", "a,b", "--site",
        "c", "--prompt", "one, two", "--level", "0.5", "--kind", "micro", "--no-untrained",
        "--profile", "--seed", "7", "--json", "-q", "--out", "RUN", "--overwrite",
    )  # fmt: skip
    assert options == Depths(
        folder=Path("F,G"),
        shots=(0, 1, 2, 7, 9),
        rates=(0.5,),
        site=("a", "b", "c"),
        prompt=("one, two",),
        level=0.5,
        kind="micro",
        untrained=False,
        profile=True,
        seed=7,
    )
    assert output == Output(Path("RUN"), True, True, True)


def test_without_a_flag_it_is_the_default():
    options, output, _ = run("F")
    assert options == Depths(folder=Path("F"))
    assert output == Output(None, False, False, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seed", "x"), "--seed must be a whole number, got 'x'"),
        (("--seed", "-1"), "--seed must be 0 or greater, got -1"),
        (("--level", "2"), "--level must be greater than 0 and less than 1, got 2.0"),
        (("--kind", "mean"), "--kind must be one of macro or micro, got 'mean'"),
        (("--shots", "3-1"), "--shots must be ascending ranges up to 10,000, got '3-1'"),
        (("--shots", "few"), "--shots must be whole numbers such as 0-8"),
        (("--rates", "0.1,0"), "--rates must be greater than 0, got 0.0"),
    ],
)
def test_mistakes_name_the_flag(arguments: tuple[str, str], message: str):
    with pytest.raises(InvalidInputError) as error:
        run("F", *arguments)
    assert str(error.value).startswith(message)


def test_help_says_everything():
    _, _, result = run("--help")
    words = [
        "Depths of a model",
        "--shots",
        "--no-untrained",
        "Shot counts.",
        "Choices: macro, micro.",
    ]
    words += ["0.001,0.01", "--json", "--quiet", "--out", "--overwrite", "Random seed."]
    for text in words:
        assert text in result.output, text
    # No names of Python's types, and no braces around arguments.
    assert not [text for text in ("<bool>", "<str>", "{FOLDER}") if text in result.output]
    assert "--no-profile" not in result.output
    assert result.output.index("Model") < result.output.index("Measurement")


def test_every_verb_lists_running_in_one_order():
    from ed_interp.cli.app import VERBS, app

    for name in VERBS:
        importlib.import_module(f"ed_interp.cli.{name}")
    order, verbs = ["--batch-size", "--seed", "--device", "--dtype"], []
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    for verb in (verb for group in groups for verb in group.registered_commands):
        signature = inspect.signature(verb.callback)
        options = [hint.annotation.__metadata__[0] for hint in signature.parameters.values()]
        assert all(getattr(about, "rich_help_panel", "") is not None for about in options
                   if isinstance(about, typer.models.OptionInfo)), verb.name  # fmt: skip
        running = [about for about in options if about.rich_help_panel == RUNNING]
        flags = [about.default for about in running]  # where Annotated keeps the flag
        first = [flag for flag in order if flag in flags]
        assert flags[: len(first)] == first, verb.name
        verbs.append(verb.name)
        if verb.name not in ("models", "tasks"):
            assert "\n- ed-interp " in verb.help, verb.name
        # The list of verbs says it before the verb is imported.
        if verb.name in VERBS and verb in app.registered_commands:
            assert verb.short_help == VERBS[verb.name]
    assert len(verbs) > 15


def test_a_required_out_is_required():
    _, _, result = run("F", out=NEW_FILE)
    assert result.exit_code == 2
    _, _, result = run("F", "--out", "x", out=None)
    assert result.exit_code == 2


def test_a_wide_table_continues_below_itself(monkeypatch: pytest.MonkeyPatch):
    heads = ["block", *(f"column {i}" for i in range(12))]
    rows = [[f"block {i}", *[f"{i}.2345"] * 12] for i in range(3)]
    table = Table(name="t", caption="Bits [not markup]", heads=heads, rows=rows, notes=["a note"])
    console = Console(width=60, record=True)
    show.print_tables([table], console=console)
    text = console.export_text()
    assert "Bits [not markup]" in text
    assert "a note" in text
    assert all(len(line) <= 60 for line in text.splitlines())
    assert text.count("block 2") > 1
    assert all(f"column {i}" in text for i in range(12))
    assert text.count("2.2345") == 12


def test_every_part_of_a_wide_table_names_its_rows():
    heads = ("model", "shots", *(f"column {i}" for i in range(9)))
    rows = [("step 300", str(shots), *[f"{shots}.2345"] * 9) for shots in range(8)]
    table = Table(name="t", caption="", heads=heads, rows=rows, keys=2)
    console = Console(width=50, record=True)
    show.print_tables([table], console=console)
    lines = [line.split() for line in console.export_text().splitlines() if line.strip()]
    assert sum(line[:2] == ["model", "shots"] for line in lines) > 1
    for line in lines:
        if line[0] == "step":
            assert all(cell.startswith(f"{line[2]}.") for cell in line[3:])
            assert len(line) > 3


def test_a_table_without_rows_or_with_keys_alone():
    console = Console(width=50, record=True)
    empty = Table(name="t", caption="Nothing", heads=("model", "shots"), rows=(), keys=2)
    show.print_tables([empty], console=console)
    assert "model" in console.export_text()


def test_cautions_come_before_the_tables(capsys: pytest.CaptureFixture[str]):
    row = FeatureEmergenceRow(
        step=300, shots=2, active=5, l0=3.0, informative=1, new=(7,), top=((7, 0.5),),
        best_bits=0.5, fvu=0.2,
    )  # fmt: skip
    rows = (row, dataclasses.replace(row, shots=8))
    caution = "The dictionary was not trained on this model."
    result = FeatureEmergence(
        model="m", task="t", about="answer", site="s", latents=8, label_entropy=1.0, rows=rows,
        settings={"cautions": [caution]},
    )  # fmt: skip
    show.print_result(result)
    text = capsys.readouterr().out
    assert result.headline()[:40] in text
    assert text.index("1 features inform") < text.index(caution) < text.index("most informative")
    assert result.tables()[0].keys == 2
