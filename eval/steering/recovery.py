"""How much of in-context learning a vector restores in prompts without demonstrations.

For every relation of the bundled models, on pairs that no training prompt held: accuracy without
demonstrations, with eight, and without but with a vector added at the last token of the prompt.

    recovered = (accuracy with vector - accuracy at 0 shots) / (accuracy at 8 - accuracy at 0)

Vectors and heads, and for the peers a strength and a site, come from prompts of the other pairs.
The default placement of heads was itself chosen on `icl-gpt2` (``tests/benchmarks/directions.md``).
Accuracies weigh every relation the same. A seed draws the prompts that vectors are found on, the
eight-shot prompts and the random vectors.

Cost: about a minute per seed and model on one CPU core, half of it for the peers.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ed_interp.eval.steering.plan import Cell
from ed_interp.eval.steering.rows import RecoveryRow, RelationRow
from ed_interp.eval.steering.samples import Question, questions
from ed_interp.eval.steering.scoring import answer
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.models.recipe.tables import held_out, relations, trained
from ed_interp.models.sites import resid_post
from ed_interp.probes.directions.find import find_direction
from ed_interp.probes.directions.function_vectors import function_vector, head_effects
from ed_interp.probes.directions.pairs import Contrast
from ed_interp.progress import Progress, track
from ed_interp.prompts.population import draw
from ed_interp.prompts.tasks import LabelledTask, Template
from ed_interp.results import Result
from ed_interp.streams.direction import Direction
from ed_interp.streams.injection import Add, Where
from ed_interp.tables import Table, plain_table

if TYPE_CHECKING:
    import pandas as pd

SHOTS = 8
OWN = "function vector, every head in its own block"
SUM = "function vector, sum at one block (Todd et al.)"
STATE = "difference of mean states (after Hendel et al.)"
RANDOM = "random vectors of equal norm"
_LAST = Where(positions=-1)
_STRENGTHS = (1.0, 1.5, 2.0, 3.0)
_TUNED_ON = 12
"""Pairs per relation that strengths and sites of the peers are chosen on."""


@dataclasses.dataclass(frozen=True)
class Recovery(Result):
    """Shares of in-context learning that vectors restore. Made by :func:`recovery`."""

    KIND = "steering-recovery"
    model: str
    rows: tuple[RecoveryRow, ...]
    by_relation: tuple[RelationRow, ...]
    """Accuracies of :data:`OWN` per relation and seed."""
    heads: tuple[tuple[tuple[int, int], ...], ...]
    """Chosen heads by seed."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def relation_frame(self) -> pd.DataFrame:
        """Per relation, mean over seeds: ``zero_shot``, ``accuracy``, ``eight_shot``."""
        frame = self.to_frame("by_relation").drop(columns="seed")
        return frame.groupby("relation", sort=False).mean()

    def title(self) -> str:
        return f"In-context learning restored in {self.model}"

    def headline(self) -> str:
        shares = [row.recovered for row in self.rows if row.vector == OWN]
        return (
            f"Function vectors restore {sum(shares) / len(shares):.0%} of the accuracy gap between "
            f"0 and {SHOTS} shots (mean of {len(shares)} seeds)."
        )

    def tables(self) -> list[Table]:
        heads = {"zero_shot": "0 shots", "eight_shot": f"{SHOTS} shots", "accuracy": "steered"}
        heads |= {"coefficient": "strength"}
        formats = {"recovered": "+.0%", "coefficient": "g"}
        return [plain_table("recovery", "Accuracy", self.rows, heads=heads, formats=formats,
                            number=".3f", keys=2, terminal=True)]  # fmt: skip


def recovery(
    model: Any = "icl-gpt2",
    *,
    seeds: Sequence[int] = range(5),
    names: Sequence[str] | None = None,
    prompts: int = 32,
    peers: bool = True,
    progress: Progress = None,
) -> Recovery:
    """Measure it on a bundled model.

    Args:
        model: ``icl-gpt2`` or ``icl-gemma2`` (or another model made by the recipe with seed 0).
        seeds: Each is a measurement of its own.
        names: Relations; by default all of them.
        prompts: In-context prompts per relation that vectors are found on.
        peers: Also measure the sum at one block and the difference of mean states.
        progress: See :mod:`ed_interp.progress`.
    """
    hooked = load(model)
    chosen = list(relations() if names is None else names)
    rows: list[RecoveryRow] = []
    by_relation: list[RelationRow] = []
    heads = []
    with track(progress, "recovery", len(seeds)) as advance:
        for seed in seeds:
            measured = _Seed(hooked, [_relation(hooked, name, seed) for name in chosen], seed)
            tasks = [subject.task for subject in measured.subjects]
            drawn: dict[str, Any] = {"shots": SHOTS, "prompts": prompts, "seed": seed}
            # Heads are chosen over all relations together, as in Todd et al.
            effects = head_effects(hooked, tasks, **drawn)
            heads.append(effects.chosen())
            drawn["heads"] = effects
            own = [function_vector(hooked, task, **drawn) for task in tasks]
            rows.append(measured.row(OWN, own, 1.0, "own block"))
            by_relation += measured.by_relation(own)
            randoms = [Cell("", vector, 1.0).random(seed).direction for vector in own]
            rows.append(measured.row(RANDOM, randoms, 1.0, "own block"))
            if peers:
                sums = {
                    site: [function_vector(hooked, task, placement=site, **drawn) for task in tasks]
                    for site in (resid_post(layer).name for layer in range(hooked.n_layers))
                }
                rows.append(measured.tuned(SUM, sums))
                rows.append(measured.tuned(STATE, _states(hooked, tasks, prompts, seed)))
            advance(1)
    record = {"seeds": list(seeds), "names": chosen, "prompts": prompts, "peers": peers}
    return Recovery(hooked.name, tuple(rows), tuple(by_relation), tuple(heads), record)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


@dataclasses.dataclass(frozen=True)
class _Relation:
    """A relation's queries under the model's tokenizer."""

    task: LabelledTask
    """The pairs that vectors are found on."""
    tuning: list[Question]
    """Zero-shot queries of some of these."""
    held: list[Question]
    """Zero-shot queries of the pairs that no training prompt held."""
    shown: list[Question]
    """The same after eight demonstrations, four draws each."""


class _Seed:
    """Accuracies of one seed."""

    def __init__(self, hooked: HookedModel, subjects: list[_Relation], seed: int) -> None:
        self.hooked, self.subjects, self.seed = hooked, subjects, seed
        self.zero = _mean([self._one(subject.held) for subject in subjects])
        self.eight = _mean([self._one(subject.shown) for subject in subjects])

    def row(
        self, kind: str, vectors: Sequence[Direction], strength: float, site: str
    ) -> RecoveryRow:
        """The accuracy on held-out pairs with these vectors, one per relation."""
        accuracy = self._steered(vectors, strength, [subject.held for subject in self.subjects])
        # 1 is as good as eight shots, 0 no better than none; both can be exceeded.
        share = (accuracy - self.zero) / (self.eight - self.zero)
        return RecoveryRow(kind, self.seed, self.zero, self.eight, accuracy, share, site, strength)

    def tuned(self, kind: str, by_site: dict[str, list[Direction]]) -> RecoveryRow:
        """The same at the site and strength that are best on the pairs vectors are found on."""
        # Not on the held-out pairs, which would reward the peers for a lucky choice.
        queries = [subject.tuning for subject in self.subjects]
        _, site, strength = max(
            (self._steered(vectors, strength, queries), site, strength)
            for site, vectors in by_site.items()
            for strength in _STRENGTHS
        )
        return self.row(kind, by_site[site], strength, site)

    def by_relation(self, vectors: Sequence[Direction]) -> list[RelationRow]:
        """Accuracies of each relation without, with the vector, and at eight shots."""
        return [
            RelationRow(s.task.name, self.seed, self._one(s.held), self._one(s.held, vector),
                        self._one(s.shown))
            for s, vector in zip(self.subjects, vectors, strict=True)
        ]  # fmt: skip

    def _steered(
        self, vectors: Sequence[Direction], strength: float, queries: list[list[Question]]
    ) -> float:
        both = zip(queries, vectors, strict=True)
        return _mean([self._one(some, vector, strength) for some, vector in both])

    def _one(
        self, queries: list[Question], vector: Direction | None = None, strength: float = 1.0
    ) -> float:
        added = () if vector is None else (Add(vector, coefficient=strength, where=_LAST),)
        return float(answer(self.hooked, queries, added).correct.double().mean())


def _relation(hooked: HookedModel, name: str, seed: int) -> _Relation:
    # Seed 0 is that of the bundled models: pairs held out there were never trained on.
    pairs, template = held_out(0)[name], Template()
    task = LabelledTask(name, trained(0)[name])
    # Seeded by name, so that a relation is drawn alike whatever others are measured.
    rng = random.Random(f"recovery {name} {seed}")
    shown = []
    for source, target in pairs * 4:
        # A demonstration with the query's own input would give the answer away.
        others = [pair for pair in task.pairs if pair[0] != source]
        demonstrations = rng.sample(others, min(SHOTS, len(others)))
        before = "".join(template.demonstration(*pair) for pair in demonstrations)
        shown.append((before + template.query(source), template.answer(target)))
    tuned_on = rng.sample(task.pairs, min(_TUNED_ON, len(task.pairs)))
    tuning, held = (
        [(template.query(source), template.answer(target)) for source, target in some]
        for some in (tuned_on, pairs)
    )
    return _Relation(task, *(questions(hooked, texts) for texts in (tuning, held, shown)))


def _states(
    hooked: HookedModel, tasks: Sequence[LabelledTask], prompts: int, seed: int
) -> dict[str, list[Direction]]:
    """By site: mean state after demonstrations minus mean state of the query alone, per task."""
    by_site: dict[str, list[Direction]] = {}
    for task in tasks:
        drawn = draw(task, prompts=prompts, shots=(0, SHOTS), seed=seed).prompts
        # Not pairs: each query stands once without demonstrations, however often it was drawn.
        contrast = Contrast.unpaired(
            ["".join(prompt.demonstrations) + (prompt.query or "") for prompt in drawn],
            sorted({prompt.query or "" for prompt in drawn}),
            name=task.name,
        )
        direction = find_direction(hooked, contrast)
        for site in direction.sites:
            by_site.setdefault(site.name, []).append(direction.restricted(site))
    return by_site
