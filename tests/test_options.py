"""Options: what is checked, recorded, and seen by callers of a function that takes them."""

import dataclasses
import inspect
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from ed_interp.errors import InvalidInputError
from ed_interp.models.options import ModelOptions
from ed_interp.options import Batched, OptionError, Options, Seeded, option, takes_options
from ed_interp.probes.emergence.estimators.base import Estimator
from ed_interp.prompts.options import PromptOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depths(ModelOptions, Seeded, Batched):
    shots: tuple[int, ...] | None = option(None, "Shot counts.", min=0)
    level: float = option(0.95, "Confidence level.", above=0, below=1)
    kind: Literal["macro", "micro"] = option("macro", "Term.")
    folder: Path | None = option(None, "Folder.")


@takes_options(Depths)
def depths(model: object = "icl-gpt2", *, options: Depths, out: str | None = None):
    """Depths of a model."""
    return model, options, out


def test_values_are_brought_to_the_type_of_their_field():
    options = Depths(shots=range(3), level=np.float64(0.5), seed=np.int64(4), folder="x")
    assert options.shots == (0, 1, 2)
    assert (type(options.level), type(options.seed)) == (float, int)
    assert options.folder == Path("x")
    assert Depths(shots=(1, 2)).shots == (1, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or greater, got 0"),
        ({"seed": -1}, "seed must be 0 or greater, got -1"),
        ({"seed": True}, "seed must be a whole number, got True"),
        ({"seed": "1"}, "seed must be a whole number, got '1'"),
        ({"batch_size": 1.5}, "batch_size must be a whole number, got 1.5"),
        ({"level": 2}, "level must be greater than 0 and less than 1, got 2"),
        ({"level": float("nan")}, "level must be a finite number, got nan"),
        ({"level": True}, "level must be a finite number, got True"),
        ({"kind": "mean"}, "kind must be one of macro or micro, got 'mean'"),
        ({"shots": "0-8"}, "shots must be a sequence, got '0-8'; put it into a list"),
        ({"shots": 3}, "shots must be a sequence, got 3; put it into a list"),
        ({"shots": [0, -1]}, "shots must be 0 or greater, got -1"),
        ({"trust_remote_code": 1}, "trust_remote_code must be true or false, got 1"),
        ({"model": 7}, "model must be text, got 7"),
    ],
)
def test_what_cannot_be_used_is_refused(settings: dict[str, object], message: str):
    with pytest.raises(OptionError) as error:
        Depths(**settings)
    assert str(error.value) == message
    assert isinstance(error.value, ValueError)


def test_the_record_makes_the_same_options():
    options = Depths(shots=[0, 4], folder="a/b", level=0.9)
    record = options.to_dict()
    assert record["shots"] == [0, 4]
    assert record["folder"] == "a/b"
    assert Depths.from_dict(record) == options
    with pytest.raises(InvalidInputError, match=r"levl must be a setting of Depths; did you mean"):
        Depths.from_dict({"levl": 0.5})


def test_settings_by_keyword_or_all_at_once():
    assert depths(shots=[1])[1] == Depths(shots=(1,))
    assert depths(options=Depths(seed=3), level=0.5)[1] == Depths(seed=3, level=0.5)
    assert depths("gpt2", out="RUN") == ("gpt2", Depths(model="gpt2"), "RUN")
    assert depths(options=Depths(model="gpt2"))[0] == "gpt2"


def test_a_live_object_is_recorded_by_name_or_type():
    class Model:
        pass

    live = Model()
    model, options, _ = depths(live)
    assert model is live
    assert options.model == "Model"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: depths(shotz=[1]), InvalidInputError),
        (lambda: depths(options=Seeded()), InvalidInputError),
        (lambda: depths("a", "b"), TypeError),
        (lambda: depths("a", model="b"), TypeError),
    ],
)
def test_wrong_calls_are_refused(call, error):
    with pytest.raises(error):
        call()


def test_callers_see_every_setting():
    parameters = inspect.signature(depths).parameters
    assert next(iter(parameters)) == "model"
    assert {"shots", "level", "seed", "device", "out", "options"} <= set(parameters)
    assert parameters["level"].default == 0.95
    assert parameters["model"].default == "icl-gpt2"
    assert "Confidence level." in (depths.__doc__ or "")


def test_bounds_have_names():
    with pytest.raises(TypeError, match="minimum"):
        option(1, "x", minimum=0)


def test_prompts_come_from_one_source():
    with pytest.raises(InvalidInputError, match="from one source, got task and data"):
        PromptOptions(task="sentiment", data="x.csv")
    with pytest.raises(
        InvalidInputError, match="window must come with text, got prompts from task"
    ):
        PromptOptions(window=4)
    with pytest.raises(InvalidInputError, match="input_column must come with data or dataset"):
        PromptOptions(text="x.txt", input_column="a")
    assert PromptOptions().task_label == "mixed-country"
    assert PromptOptions(data="a/pairs.csv").task_label == "pairs"


def every_options_class() -> list[type[Options]]:
    """Options of every operation of the library."""
    import importlib
    import pkgutil

    import ed_interp

    for info in pkgutil.walk_packages(ed_interp.__path__, "ed_interp."):
        if info.name.rpartition(".")[2].endswith("options"):
            importlib.import_module(info.name)
    kinds, waiting = [], [Options]
    while waiting:
        children = waiting.pop().__subclasses__()
        kinds += [kind for kind in children if kind.__module__.startswith("ed_interp.")]
        waiting += children
    return kinds


def test_every_option_has_help_in_plain_words():
    kinds = every_options_class()
    assert len(kinds) > 8
    for kind in kinds:
        for field in dataclasses.fields(kind):
            text = field.metadata.get("help", "")
            assert text.endswith((".", ")")), (kind, field.name, text)
            assert text[0].isupper() or text[0] == ".", (kind, field.name, text)
            assert not text.startswith(("Of ", "If not", "As ")), (kind, field.name, text)


# Where an option of that name means something else, its own words say so.
OWN_MEANING = {
    ("shots", "FindOptions"): "Shots of its prompts (with function_vector).",
    ("prompts", "ApplyOptions"): r"Text to continue; \n is a line break.",
    ("batch_size", "TrainingOptions"): "Examples per step (with --accumulate per batch).",
    ("batch_size", "StudyOptions"): "Examples per training step.",
    ("batch_size", "dictionaries"): "Tokens per step.",
}


def test_one_option_means_the_same_everywhere():
    """The same name, default and help in every operation, unless it says why not."""
    loading = ("model", "tokenizer", "device", "dtype", "revision", "task")
    # Of these the default depends on what an operation costs.
    measuring = ("shots", "prompts", "level", "resamples", "seed", "batch_size")
    seen: dict[str, tuple[object, str, type]] = {}
    for kind in every_options_class():
        if issubclass(kind, Estimator):
            continue  # its options are its own, and no flags: --set dtype=float64
        # Classes that inherit an option with a meaning of its own, and a room with such a class.
        names = {base.__name__ for base in kind.__mro__}
        names |= {"dictionaries"} if kind.__module__.endswith("dictionaries.options") else set()
        for field in dataclasses.fields(kind):
            text = field.metadata["help"]
            own = {
                OWN_MEANING[key] for key in OWN_MEANING if key[0] == field.name and key[1] in names
            }
            if field.name not in loading + measuring or text in own:
                continue
            # A dictionary has a model of its own, which --help shows in place of the default.
            elsewhere = field.metadata["shown"] == "the dictionary's own"
            default = "icl-gpt2" if elsewhere else field.default
            mine = (None if field.name in measuring else default, text, kind)
            first = seen.setdefault(field.name, mine)
            assert first[:2] == mine[:2], (field.name, first[2], kind)
    assert set(seen) == {*loading, *measuring}


def test_features_are_named_alike():
    from ed_interp.probes.dictionaries.options import ExplainOptions, ShowOptions

    texts = [
        field.metadata["help"]
        for kind in (ShowOptions, ExplainOptions)
        for field in dataclasses.fields(kind)
        if field.name in ("feature", "features")
    ]
    assert len(texts) == 2
    assert len(set(texts)) == 1


def test_what_is_required_is_asked_for_by_name():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Files(Options):
        data: Path = option(help="Data.")

    @takes_options(Files)
    def read(data: object = None, *, options: Files):
        return data, options.data

    assert read("x.csv") == ("x.csv", Path("x.csv"))
    for given in ({}, {"data": None}):
        with pytest.raises(OptionError, match="data must be given, got nothing"):
            read(**given)


def test_the_command_line_s_spelling():
    error = OptionError("window", "must come with text, got prompts from task 'text'", "text")
    assert str(error) == "window must come with text, got prompts from task 'text'"
    flags = {"window": "--window", "text": "--text", "task": "--task"}
    assert error.spelled(flags) == "--window must come with --text, got prompts from task 'text'"
    assert OptionError("window", "must be (text)").spelled(flags) == "--window must be (text)"
