"""The records that a paper is made of: found, checked by their own readers, and read by place.

Cost: what the readers cost; the sub-records of a controlled study (the comparison and the adapter
of the arm under test at its first seed) are read with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ed_interp.errors import EdInterpError, InvalidInputError, RunFolderError
from ed_interp.eval.compare.files import read_record
from ed_interp.eval.paper.document import Value, key_of

RUN, COMPARISON, TRAINING, CONFIG = (
    "run.json",
    "comparison.json",
    "training.json",
    "adapter_config.json",
)
WEIGHTS = "adapter_model.safetensors"


@dataclasses.dataclass(frozen=True)
class Record:
    """A folder that a run wrote."""

    id: str
    """``R1``, ``R2``, ... in the order they were given."""
    kind: str
    """One of :data:`KINDS`, or ``adapter``."""
    folder: str
    """As it was given."""
    files: dict[str, Any] = dataclasses.field(compare=False)
    """Name of each file -> the plain data in it (of weights: what ``describe`` reads there)."""
    loaded: Any = dataclasses.field(compare=False)
    """What the kind's own reader gives."""
    sha256: str
    """Of the main file."""
    main: str = RUN
    parent: str = ""
    """Id of the study it is a part of."""

    def place(self, *path: str | int, file: str = "") -> Place:
        """A place in one of its files, by default the main one."""
        name = file or self.main
        found = Place(self, name, (), self.files.get(name))
        for step in path:
            found = found[step]
        return found


@dataclasses.dataclass(frozen=True)
class Place:
    """Somewhere in a record: steps lead deeper, and :meth:`show` puts it on the page."""

    record: Record
    file: str
    path: tuple[str | int, ...]
    raw: Any
    known: bool = True
    """Whether the record has this place, be it with a value or with nothing in it."""

    def __getitem__(self, step: str | int) -> Place:
        found, known = None, False
        if isinstance(self.raw, dict):
            found, known = self.raw.get(step), step in self.raw
        elif isinstance(self.raw, list) and isinstance(step, int) and step < len(self.raw):
            found, known = self.raw[step], True
        return Place(self.record, self.file, (*self.path, step), found, known)

    def __iter__(self) -> Iterator[Place]:
        """The items of a list, or the values of an object."""
        steps = list(self.raw) if isinstance(self.raw, dict) else range(len(self.raw or ()))
        for step in steps:
            yield self[step]

    @property
    def there(self) -> bool:
        """Whether the record holds something here."""
        return self.raw is not None and self.raw != [] and self.raw != {} and self.raw != ""

    def show(self, form: str = "") -> Value:
        """What is here, as the page shows it: numbers by the format ``form``, words as they are."""
        text = shown(self.raw, form)
        if not text.strip() and self.known:
            # A setting without a value was set to nothing, which is not the same as left out.
            return Value("none", self.record.id, self.file, self.path, missing=True)
        return Value(text.strip(), self.record.id, self.file, self.path, missing=not text.strip())


def shown(raw: Any, form: str = "") -> str:
    """Plain data as text; empty where nothing is there."""
    if raw is None:
        return ""
    if isinstance(raw, bool):
        return "yes" if raw else "no"
    if isinstance(raw, float):
        return format(raw, form or ".4g")
    if isinstance(raw, int):
        return format(raw, form if form == "," or form.endswith("g") else "d")
    if isinstance(raw, (list, tuple)):
        return ", ".join(shown(item, form) or "none" for item in raw)
    return raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of record: what it is called, and who reads it."""

    what: str
    load: Callable[[Path], Any]
    file: str = RUN


def _study(folder: Path) -> Any:
    from ed_interp.eval.study.experiment import Experiment

    return Experiment.load(folder)


def _comparison(folder: Path) -> Any:
    from ed_interp.eval.compare.result import Comparison

    return Comparison.load(folder)


def _curve(folder: Path) -> Any:
    from ed_interp.probes.emergence.curve import EmergenceCurve

    return EmergenceCurve.load(folder)


def _calibration(folder: Path) -> Any:
    from ed_interp.probes.emergence.calibration.files import load_calibration

    return load_calibration(folder)


def _sweep(folder: Path) -> Any:
    from ed_interp.eval.steering.files import load_sweep

    return load_sweep(folder)


def _measurement(folder: Path) -> Any:
    from ed_interp.probes.dictionaries.measurement import DictionaryMeasurement

    return DictionaryMeasurement.load(folder)


def _features(folder: Path) -> Any:
    from ed_interp.probes.dictionaries.emergence.result import FeatureEmergence

    return FeatureEmergence.load(folder)


def _descriptions(folder: Path) -> Any:
    from ed_interp.probes.dictionaries.description.files import load_descriptions

    return load_descriptions(folder)


def _dictionary(folder: Path) -> Any:
    return read_record(folder / RUN, "ed-interp/dictionary", 1)


def _trained(folder: Path) -> Any:
    from ed_interp.adapters.training import TrainedAdapter
    from ed_interp.adapters.training.result import FORMAT

    read_record(folder / TRAINING, FORMAT, 1)
    return TrainedAdapter.load(folder)


KINDS = {
    "ed-interp/comparison-run": Kind("controlled study", _study),
    "ed-interp/comparison": Kind("comparison", _comparison, COMPARISON),
    "ed-interp/emergence": Kind("emergence curve", _curve),
    "ed-interp/calibration": Kind("calibration", _calibration),
    "ed-interp/steering-sweep": Kind("steering sweep", _sweep),
    "ed-interp/dictionary": Kind("dictionary", _dictionary),
    "ed-interp/dictionary-measurement": Kind("dictionary measurement", _measurement),
    "ed-interp/feature-emergence": Kind("feature emergence", _features),
    "ed-interp/feature-descriptions": Kind("feature descriptions", _descriptions),
    "ed-interp/adapter-training": Kind("trained adapter", _trained, TRAINING),
}
"""Format of a record -> its kind."""


def read_records(runs: Sequence[str | Path]) -> tuple[Record, ...]:
    """The records of run folders, in their order, each once.

    A folder of run folders stands for all of them, by name.

    Raises:
        InvalidInputError: no run was given.
        RunFolderError: a folder that is no run, is damaged, of another version or another kind.
    """
    if not runs:
        raise InvalidInputError("a paper needs at least one run; pass the folders of runs")
    folders: dict[Path, str] = {}
    for run in runs:
        for folder in _expanded(Path(run)):
            folders.setdefault(folder.expanduser().resolve(), str(folder))
    found: list[Record] = []
    for shown_as in folders.values():
        record = _read(Path(shown_as), f"R{len(found) + 1}")
        found.append(record)
        for part in _parts(record):
            found.append(_read(part, f"R{len(found) + 1}", parent=record.id))
    return tuple(found)


def _main_file(folder: Path) -> str | None:
    # A trained adapter's folder has a training record beside its configuration.
    for name in (RUN, COMPARISON, TRAINING, CONFIG):
        if (folder / name).is_file():
            return name
    return None


def _expanded(folder: Path) -> list[Path]:
    real = folder.expanduser()
    if _main_file(real) is not None:
        return [folder]
    inner = sorted(path for path in real.iterdir() if path.is_dir()) if real.is_dir() else []
    runs = [path for path in inner if not path.name.startswith(".") and _main_file(path)]
    if runs:
        return [folder / path.name for path in runs]
    if real.with_name(f".{real.name}.partial").exists():
        reason = f"the run at {folder} was interrupted; repeat its command to finish it"
    elif real.is_dir():
        reason = f"{folder} holds no record of a run; pass the folder that a run wrote"
    else:
        reason = f"there is no run at {folder}; pass the folder that a run wrote"
    raise RunFolderError(reason)


def _read(folder: Path, name: str, *, parent: str = "") -> Record:
    real = folder.expanduser()
    main = _main_file(real)
    if main is None:
        raise RunFolderError(f"{folder} holds no record of a run; pass the folder that a run wrote")
    if main == CONFIG:
        return _plain_adapter(folder, name)
    data = _json(real / main)
    kind = KINDS.get(str(data.get("format")))
    if kind is None:
        raise RunFolderError(
            f"{folder / main} is a record of an unknown kind, {data.get('format')!r:.60}; a paper "
            f"is made of: {', '.join(sorted(known.what for known in KINDS.values()))}"
        )
    if data.get("version") != 1:
        raise RunFolderError(
            f"{folder / main} has version {data.get('version')!r:.60} and this ed-interp reads 1; "
            "install the version of ed-interp that wrote it"
        )
    files = {main: data}
    try:
        loaded = kind.load(real)
    except EdInterpError as error:
        raise RunFolderError(str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunFolderError(
            f"{folder / main} is damaged ({type(error).__name__}: {error}); make the run again"
        ) from error
    if main == TRAINING:
        files |= _adapter_files(real)
    return Record(name, kind.what, str(folder), files, loaded, _digest(real / main), main, parent)


def _plain_adapter(folder: Path, name: str) -> Record:
    """An adapter without a record of its training: a checkpoint of PEFT's."""
    real = folder.expanduser()
    files = _adapter_files(real)
    return Record(name, "adapter", str(folder), files, None, _digest(real / CONFIG), CONFIG)


def _adapter_files(folder: Path) -> dict[str, Any]:
    from ed_interp.adapters.training.describe import describe, read_config

    if not (folder / CONFIG).is_file():
        return {}
    try:
        files: dict[str, Any] = {CONFIG: read_config(folder)}
        if (folder / WEIGHTS).is_file():
            files[WEIGHTS] = describe(folder)
    except EdInterpError as error:
        raise RunFolderError(str(error)) from error
    return files


def _parts(record: Record) -> list[Path]:
    """The comparison and the adapter of the arm under test at its first seed, where kept."""
    if record.kind != "controlled study":
        return []
    from ed_interp.eval.study.plan import Trial

    study, folder = record.loaded, Path(record.folder)
    plan, best = study.plan, study.best.get(study.plan.tested, 0.0)
    first = Trial(plan.tested, best, plan.seeds[0], False)
    adapter = f"{first.arm}-rate{first.rate:g}-seed{first.seed}"
    parts = [folder / "comparisons" / first.name, folder / "adapters" / adapter]
    return [part for part in parts if _main_file(part.expanduser()) is not None]


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{file} is damaged ({error}); make the run again") from error
    if not isinstance(data, dict):
        raise RunFolderError(f"{file} is damaged (no JSON object); make the run again")
    return data


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def resolve(records: Sequence[Record], value: Value) -> Any:
    """What stands at the place of a value: the way back from the page to the record.

    Raises:
        InvalidInputError: there is no such place.
    """
    record = next((each for each in records if each.id == value.record), None)
    if record is None or value.file not in record.files:
        raise InvalidInputError(f"there is no record {value.record} with {value.file}")
    found = record.files[value.file]
    for step in value.path:
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError) as error:
            raise InvalidInputError(f"{value.record} has no {key_of(value.path)}") from error
    return found
