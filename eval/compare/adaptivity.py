"""A session of interactions with feedback: what an adapter learns from them, and how it forgets.

A session shows one pair a turn, with its answer (the feedback), each in a call of its own, so that
the only thing carried from turn to turn is the adapter's experience. After every turn probes, pairs
that are not shown, are asked at zero shots, on a copy of the experience so that asking leaves no
trace. Then time passes without interactions, and last the experience is reset. Sessions are the
rows of one batch and the unit of the intervals.

Cost: ``(turns + pauses) x (probes + 1)`` forward passes of a batch of sessions.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.eval.compare.cost import adapter_tensors
from ed_interp.eval.compare.result import Adaptivity, Decay, Turn
from ed_interp.eval.compare.subjects import Subject
from ed_interp.models.runners import evaluation_mode
from ed_interp.prompts.tasks import LabelledTask
from ed_interp.statistics import bootstrap_interval

PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
Array = NDArray[np.float64]


def measure_adaptivity(
    subject: Subject,
    task: LabelledTask,
    *,
    sessions: int = 16,
    turns: int = 6,
    probes: int = 2,
    pauses: Sequence[float] = PAUSES,
    tau: float = 8.0,
    level: float = 0.95,
    seed: int = 0,
) -> Adaptivity:
    """Run sessions with feedback on a bias-injection adapter.

    Args:
        subject: An adapter with feedback nodes.
        task: Where the pairs come from.
        sessions: Independent sessions, each with pairs of its own.
        turns: Interactions with feedback in each.
        probes: Pairs asked after each turn, never shown in the session.
        pauses: Turns that pass afterwards without an interaction; the first is the reference.
        tau: Time constant of the experience between interactions, in turns.
        level: Of the intervals.
        seed: Of the pairs.

    Raises:
        InvalidInputError: an adapter without feedback nodes, or too few pairs.
    """
    from ed_interp.adapters.bias_injection.experience import Experience

    if len(task.pairs) < turns + probes:
        raise InvalidInputError(
            f"task {task.name!r} has {len(task.pairs)} pairs, and a session needs {turns} to show "
            f"and {probes} to ask; ask for fewer turns"
        )
    store = Experience(subject.model, tau=tau)
    script = _Script(subject, task, sessions, turns, probes, seed)
    with _quiet(subject):
        before = script.ask(None)
        scores = [script.ask(store)]
        neutral = _same(before, scores[0])
        for turn in range(turns):
            script.show(store, turn)
            scores.append(script.ask(store))
        decay = _decay(store, subject, script, before, pauses)
        store.reset()
        after = script.ask(store)
    rows = _turns(scores, before, level, seed)
    trained = adapter_tensors(subject)
    gain = rows[-1].gain / turns
    half = _half_life(decay)
    return Adaptivity(
        turns=rows,
        decay=decay,
        tau=tau,
        half_life_expected=tau * math.log(2),
        half_life=half,
        reset_is_neutral=neutral and _same(before, after),
        gain_per_interaction=gain,
        gain_per_interaction_per_parameter=gain / sum(trained.values()) if trained else None,
    )


class _Asked:
    """Answers to all probes of all sessions."""

    def __init__(self, logits: list[Tensor], logprob: Array, correct: Array) -> None:
        self.logits = logits
        self.logprob = logprob
        """``session``, mean over probes."""
        self.correct = correct


class _Script:
    """What is shown and asked in each session."""

    def __init__(
        self,
        subject: Subject,
        task: LabelledTask,
        sessions: int,
        turns: int,
        probes: int,
        seed: int,
    ) -> None:
        self._subject = subject
        self._tokenizer = subject.hooked.tokenizer
        if self._tokenizer is None:
            raise InvalidInputError(f"{subject.name} has no tokenizer; pass tokenizer=")
        rng = random.Random(seed)
        chosen = [rng.sample(task.pairs, turns + probes) for _ in range(sessions)]
        self.names = [f"session {number}" for number in range(sessions)]
        shape = task.template
        self._shown = [
            [shape.demonstration(*pairs[turn]) for pairs in chosen] for turn in range(turns)
        ]
        self._probes = [
            [
                (shape.query(pairs[turns + k][0]), shape.answer(pairs[turns + k][1]))
                for pairs in chosen
            ]
            for k in range(probes)
        ]

    def show(self, store: Any, turn: int) -> None:
        """One interaction of every session."""
        from ed_interp.adapters.bias_injection.experience import experience

        ids, mask = self._padded([self._ids(text) for text in self._shown[turn]])
        with experience(self._subject.model, session=self.names, store=store):
            self._subject.model(input_ids=ids, attention_mask=mask, use_cache=False)

    def ask(self, store: Any, *, pause: float = 0.0) -> _Asked:
        """All probes at zero shots, from the experience in ``store`` (None: without any).

        Every probe gets a copy of its own: asking is an interaction too, and would be remembered.
        """
        logits, logprobs, correct = [], [], []
        for probe in self._probes:
            copied = None if store is None else _copy(store, self._subject)
            if copied is not None:
                copied.advance(pause)
            found = self._ask(probe, copied)
            logits.append(found[0])
            logprobs.append(found[1])
            correct.append(found[2])
        return _Asked(logits, np.mean(logprobs, axis=0), np.mean(correct, axis=0))

    def _ask(self, probe: Sequence[tuple[str, str]], store: Any) -> tuple[Tensor, Array, Array]:
        from ed_interp.adapters.bias_injection.experience import experience

        queries = [self._ids(query) for query, _ in probe]
        answers = [self._ids(answer) for _, answer in probe]
        both = [query + answer for query, answer in zip(queries, answers, strict=True)]
        ids, mask = self._padded(both)
        scope: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if store is not None:
            scope = experience(self._subject.model, session=self.names, store=store)
        with scope:
            output = self._subject.model(input_ids=ids, attention_mask=mask, use_cache=False)
        table = output.logits.float().log_softmax(-1).cpu()
        last = torch.stack([output.logits[row, len(q) - 1].cpu() for row, q in enumerate(queries)])
        logprob, correct = np.zeros(len(probe)), np.zeros(len(probe))
        for row, (query, answer) in enumerate(zip(queries, answers, strict=True)):
            rows = table[row, len(query) - 1 : len(query) + len(answer) - 1]
            wanted = torch.tensor(answer)
            logprob[row] = float(rows.gather(-1, wanted[:, None]).sum())
            correct[row] = float((rows.argmax(-1) == wanted).all())
        return last, logprob, correct

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Right-padded ids and their mask, which freezes the nodes behind the text."""
        width = max(len(row) for row in rows)
        device = self._subject.hooked.device
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return ids, mask.to(device)


@contextlib.contextmanager
def _quiet(subject: Subject) -> Any:
    with torch.no_grad(), evaluation_mode(subject.model), subject.scope():
        yield


def _copy(store: Any, subject: Subject) -> Any:
    """The experience as it is now, in a store of its own, by its public file format."""
    from ed_interp.adapters.bias_injection.experience import Experience

    with tempfile.TemporaryDirectory() as folder:
        return Experience.load(store.save(Path(folder) / "experience.safetensors"), subject.model)


def _decay(
    store: Any, subject: Subject, script: _Script, before: _Asked, pauses: Sequence[float]
) -> tuple[Decay, ...]:
    """The effect of the experience after each pause, over that after the first; () if none."""
    sizes = []
    for pause in pauses:
        sizes.append(_distance(script.ask(store, pause=pause).logits, before.logits))
    if not sizes[0] > 0:
        return ()
    return tuple(
        Decay(float(pause), size / sizes[0]) for pause, size in zip(pauses, sizes, strict=True)
    )


def _half_life(decay: Sequence[Decay]) -> float | None:
    """Where half is left: linear between the logarithms of the points around it."""
    for first, second in itertools.pairwise(decay):
        if first.effect > 0.5 >= second.effect > 0:
            low, high = math.log(first.effect), math.log(second.effect)
            share = (math.log(0.5) - low) / (high - low)
            return first.elapsed + share * (second.elapsed - first.elapsed)
    return None


def _turns(scores: Sequence[_Asked], before: _Asked, level: float, seed: int) -> tuple[Turn, ...]:
    rows = []
    for turn, found in enumerate(scores):
        own = bootstrap_interval(found.logprob, level=level, seed=seed)
        change = found.logprob - scores[0].logprob
        gain = bootstrap_interval(change, level=level, seed=seed)
        rows.append(
            Turn(
                turn=turn,
                logprob=float(found.logprob.mean()),
                ci_low=float(own.low),
                ci_high=float(own.high),
                accuracy=float(found.correct.mean()),
                without=float(before.logprob.mean()),
                gain=float(change.mean()),
                gain_ci_low=float(gain.low),
                gain_ci_high=float(gain.high),
                n=len(found.logprob),
            )
        )
    return tuple(rows)


def _distance(first: list[Float[Tensor, "session d_vocab"]], second: list[Tensor]) -> float:
    gaps = [float((a - b).abs().mean()) for a, b in zip(first, second, strict=True)]
    return float(np.mean(gaps))


def _same(first: _Asked, second: _Asked) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.logits, second.logits, strict=True))
