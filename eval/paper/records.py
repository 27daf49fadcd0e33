"""The records that a paper is made of: checked by their own classes, and read by place.

Cost: what the readers cost. The parts of a controlled study (the comparison and the adapter of the
arm under test at its first seed) are records of their own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ed_interp.errors import EdInterpError, InvalidInputError, OptionError, RunFolderError
from ed_interp.eval.paper.values import Step, Value, key_of, shown
from ed_interp.results import Result, load_any

RESULTS = (Result.FILE, "comparison.json", "training.json")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
STUDY, COMPARISON, CURVE = "controlled study", "comparison", "emergence curve"
TRAINED = "trained adapter"
KINDS = {"comparison-run": STUDY, "emergence": CURVE, "adapter-training": TRAINED}
"""Kind of result -> what the paper calls it, if that is not its name."""
LISTS = {
    "studies": STUDY, "comparisons": COMPARISON, "curves": CURVE, "trainings": TRAINED,
    "sweeps": "steering sweep",
}  # fmt: skip
"""Variable of the template -> the records in it."""


@dataclasses.dataclass(frozen=True)
class Record:
    """A folder that a run wrote."""

    id: str
    """``R1``, ``R2``, ... in the order they were given."""
    kind: str
    folder: str
    """As it was given."""
    files: dict[str, Any] = dataclasses.field(compare=False)
    """Name of each file -> the plain data in it (of weights: what ``describe`` reads there)."""
    result: Result | None = dataclasses.field(compare=False)
    """None for a plain adapter."""
    sha256: str
    """Of the main file."""
    main: str = Result.FILE
    parent: str = ""
    """Id of the study it is a part of."""

    # The properties below are what the template sees of a record, besides its fields.

    @property
    def data(self) -> Place:
        """All of its main file."""
        return self.place()

    @property
    def digest(self) -> str:
        """The start of its SHA-256, which tells records apart."""
        return self.sha256[:16]

    def place(self, *path: Step, file: str = "") -> Place:
        """A place in one of its files, by default the main one."""
        name = file or self.main
        place = Place(self, name, (), self.files.get(name))
        for step in path:
            place = place[step]
        return place

    @property
    def adapter(self) -> Place:
        """The configuration of an adapter, if it holds one."""
        compared = self.place("treated", "adapter")
        return compared if self.kind == COMPARISON else self.place(file=CONFIG)

    @property
    def weights(self) -> Place:
        """Numbers, norms and time constants of an adapter's parameters, if it holds one."""
        return self.place(file=WEIGHTS)

    @property
    def names(self) -> list[Place]:
        """What it is about: task, models."""
        paths = {
            STUDY: (("problem", "name"), ("model", "name")),
            COMPARISON: (("treated", "name"), ("control", "name"), ("task",)),
        }.get(self.kind, (("model",), ("task",), ("estimator",), ("architecture",)))
        places = [self.place(*path) for path in paths]
        return [place for place in places if isinstance(place.raw, str)]

    @property
    def command(self) -> str:
        """The command line that made it; empty if it was not written down."""
        command = self.place("command").raw or self.place("settings", "command").raw or ""
        return command if isinstance(command, str) else shlex.join(map(str, command))


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """Somewhere in a record: steps lead deeper, a call puts it on the page: ``row.mean(".3g")``.

    Places compare as what they hold, and are false if they hold nothing or ``false``, so that the
    template can choose its words by them.
    """

    record: Record
    file: str
    path: tuple[Step, ...]
    raw: Any
    known: bool = True
    """Whether the record has this place, be it with a value or with nothing in it."""

    def __getitem__(self, step: Step) -> Place:
        raw, known = None, False
        if isinstance(self.raw, dict):
            raw, known = self.raw.get(step), step in self.raw
        elif isinstance(self.raw, list) and isinstance(step, int) and step < len(self.raw):
            raw, known = self.raw[step], True
        return Place(self.record, self.file, (*self.path, step), raw, known)

    def __iter__(self) -> Iterator[Place]:
        """The items of a list, or the values of an object."""
        steps = list(self.raw) if isinstance(self.raw, dict) else range(len(self.raw or ()))
        for step in steps:
            yield self[step]

    def __bool__(self) -> bool:
        # A measured 0 is something, in contrast to an empty list and to a plain false.
        return self.raw is not False and self.raw not in (None, [], {}, "")

    def __eq__(self, other: object) -> bool:
        # To Python 1 == True: a record that says true would be taken for one that says 1.
        raw = _raw(other)
        return type(raw) is type(self.raw) and bool(raw == self.raw)

    def __hash__(self) -> int:
        # A list or an object has no hash of its own, and rows are keys of groups.
        return hash(json.dumps(self.raw, sort_keys=True))

    # Nothing is neither below nor above anything: no claim is made of what was not measured.

    def __lt__(self, other: object) -> bool:
        raw = _raw(other)
        return None not in (self.raw, raw) and bool(self.raw < raw)

    def __gt__(self, other: object) -> bool:
        raw = _raw(other)
        return None not in (self.raw, raw) and bool(self.raw > raw)

    def __str__(self) -> str:
        # A string would arrive on the page without its source, and be read as Markdown.
        raise TypeError(f"{key_of(self.path)} must be printed by itself, as {{{{ place }}}}")

    def __call__(self, form: str = "") -> Value:
        """What is here, as the page shows it: numbers by the format ``form``, words as they are."""
        text = shown(self.raw, form).strip()
        # A setting that is null was set to nothing, which is not the same as left out.
        label = text or ("none" if self.known else "")
        return Value(label, self.record.id, self.file, self.path, missing=not text)


def _raw(other: object) -> Any:
    return other.raw if isinstance(other, Place) else other


def read_records(runs: Sequence[str | Path]) -> tuple[Record, ...]:
    """The records of run folders, in their order, each once.

    A folder of run folders stands for all of them, by name.

    Raises:
        InvalidInputError: no run was given.
        RunFolderError: a folder that is no run, is damaged, of another version or another kind.
    """
    if not runs:
        raise OptionError("runs", "must name at least one run folder, got none")
    folders: dict[Path, str] = {}
    for run in runs:
        for folder in _expanded(Path(run)):
            folders.setdefault(folder.expanduser().resolve(), str(folder))
    records: list[Record] = []
    for shown_as in folders.values():
        records.append(record := _read(Path(shown_as), f"R{len(records) + 1}"))
        for part in _parts(record):
            records.append(_read(part, f"R{len(records) + 1}", parent=record.id))
    return tuple(records)


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (*RESULTS, CONFIG))


def _expanded(folder: Path) -> list[Path]:
    # What is no run and holds none is passed on: the reader of results says what is wrong with it.
    real = folder.expanduser()
    if _is_run(real):
        return [folder]
    inner = sorted(path for path in real.iterdir() if path.is_dir()) if real.is_dir() else []
    runs = [path for path in inner if not path.name.startswith(".") and _is_run(path)]
    return [folder / path.name for path in runs] or [folder]


def _read(folder: Path, name: str, *, parent: str = "") -> Record:
    real = folder.expanduser()
    result = None
    if _is_run(real) and not any((real / file).is_file() for file in RESULTS):
        kind, main = "adapter", CONFIG  # a checkpoint of PEFT's
    else:
        result = load_any(real)
        main = type(result).FILE
        # The name of another package's kind may hold digits, which no sentence of ours may have.
        kind = KINDS.get(result.KIND) or re.sub(r"[\W\d_]+", " ", result.KIND).strip()
    data = json.loads((real / main).read_text(encoding="utf-8")) if main != CONFIG else {}
    # The file's header (environment, command) is kept beside the data that was checked.
    files = {main: {**data, **({} if result is None else result.to_dict())}}
    digest = hashlib.sha256((real / main).read_bytes()).hexdigest()
    try:
        if (real / CONFIG).is_file():
            from ed_interp.adapters.training.describe import describe, read_config

            files[CONFIG] = read_config(real)
            if (real / WEIGHTS).is_file():
                files[WEIGHTS] = describe(real).to_dict()
    except EdInterpError as error:
        raise RunFolderError(str(error)) from error
    return Record(name, kind, str(folder), files, result, digest, main, parent)


def _parts(record: Record) -> list[Path]:
    """The comparison and the adapter of the arm under test at its first seed, where kept."""
    if record.kind != STUDY:
        return []
    folder = Path(record.folder)
    try:
        first = getattr(record.result, "first")  # noqa: B009 - of the study's class alone
    except InvalidInputError as error:
        reason = f"{folder / record.main} is damaged ({error}); run the command again"
        raise RunFolderError(reason) from error
    parts = [folder / "comparisons" / first.name, folder / "adapters" / first.adapter]
    return [part for part in parts if _is_run(part.expanduser())]
