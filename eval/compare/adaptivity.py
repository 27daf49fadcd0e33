"""A session of interactions with feedback: what an adapter learns from them, and how it forgets.

A session shows one pair a turn, with its answer (the feedback), each in a call of its own, so that
the only thing carried from turn to turn is the adapter's experience. After every turn the model is
probed with pairs that are not shown, at zero shots, on a copy of the experience so that a probe
leaves no trace. Then time passes without interactions, and last the experience is reset. Sessions
are the rows of one batch and the unit of the intervals.

Cost: ``(turns + pauses) x (probes + 1)`` forward passes of a batch of sessions.
"""

from __future__ import annotations

import itertools
import math
import random
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ed_interp.errors import InvalidInputError
from ed_interp.eval.compare.cost import adapter_state
from ed_interp.eval.compare.rows import Adaptivity, Decay, Turn
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
    """Run independent sessions on a bias-injection adapter, each with its own pairs of the task.

    ``probes`` pairs, never shown in the session, are probed after each turn. Then each of the
    ``pauses`` passes, in turns without an interaction; the first is the reference. ``tau`` is the
    time constant of the experience between interactions, in turns.

    Raises:
        InvalidInputError: an adapter without feedback nodes, or too few pairs.
    """
    from ed_interp.adapters.bias_injection.experience import Experience

    if len(task.pairs) < turns + probes:
        raise InvalidInputError(
            f"task {task.name!r} must have {turns + probes} pairs or more ({turns} to show, "
            f"{probes} to probe), got {len(task.pairs)} pairs; use fewer turns"
        )
    # Refuses an adapter without feedback nodes.
    store = Experience(subject.model, tau=tau)
    rng = random.Random(seed)
    drawn = [rng.sample(task.pairs, turns + probes) for _ in range(sessions)]
    script = _Script(subject, task, drawn, turns)
    with torch.no_grad(), evaluation_mode(subject.model), subject.scope():
        before = script.probe(None)
        scores = [script.probe(store)]
        for turn in range(turns):
            script.show(store, turn)
            scores.append(script.probe(store))
        later = [script.probe(store, pause=pause) for pause in pauses]
        store.reset()
        after = script.probe(store)
    rows = [_turn(turn, score, scores[0], before, level, seed) for turn, score in enumerate(scores)]
    trained = sum(tensor.numel() for tensor in (adapter_state(subject) or {}).values())
    gain, decay = rows[-1].gain / turns, _decay(later, before, pauses)
    return Adaptivity(
        turns=tuple(rows),
        decay=decay,
        tau=tau,
        half_life_expected=tau * math.log(2),
        half_life=_half_life(decay),
        # An experience of nothing must act like none: at the start, and after the reset.
        reset_is_neutral=_same(before, scores[0]) and _same(before, after),
        gain_per_interaction=gain,
        gain_per_interaction_per_parameter=gain / trained if trained else None,
    )


class _Answers(NamedTuple):
    """Answers to all probes of all sessions."""

    logits: Sequence[Float[Tensor, "session d_vocab"]]
    """After the query of each probe."""
    logprob: Array
    """``session``, mean over probes."""
    correct: Array


class _Script:
    """What is shown and probed in each session."""

    def __init__(
        self,
        subject: Subject,
        task: LabelledTask,
        drawn: Sequence[Sequence[tuple[str, str]]],
        turns: int,
    ) -> None:
        if subject.hooked.tokenizer is None:
            raise InvalidInputError(f"{subject.name} must have a tokenizer; pass tokenizer=")
        self._subject, shape = subject, task.template
        self._names = [f"session {number}" for number in range(len(drawn))]
        # Turn by turn (and probe by probe), the pairs of all sessions: the rows of a batch. The
        # first pairs of a session are shown; the rest are its probes.
        rows = list(zip(*drawn, strict=True))
        self._shown = [
            [self._ids(shape.demonstration(*pair)) for pair in pairs] for pairs in rows[:turns]
        ]
        self._probes = [
            [(self._ids(shape.query(q)), self._ids(shape.answer(a))) for q, a in pairs]
            for pairs in rows[turns:]
        ]

    def show(self, store: Any, turn: int) -> None:
        """One interaction of every session."""
        self._run(self._shown[turn], store)

    def probe(self, store: Any, *, pause: float = 0.0) -> _Answers:
        """All probes at zero shots, from the experience in ``store`` (None: without any)."""
        parts = []
        for pairs in self._probes:
            # A probe is an interaction too and would be remembered: each gets its own copy.
            copied = None if store is None else _copy(store, self._subject)
            if copied is not None:
                copied.advance(pause)
            parts.append(_scores(self._run([q + a for q, a in pairs], copied), pairs))
        logits, logprobs, correct = zip(*parts, strict=True)
        return _Answers(logits, np.mean(logprobs, axis=0), np.mean(correct, axis=0))

    def _run(self, rows: Sequence[list[int]], store: Any) -> Float[Tensor, "session pos d_vocab"]:
        """Logits of one right-padded batch; the mask freezes the nodes behind each text."""
        from ed_interp.adapters.bias_injection.experience import experience

        model, device = self._subject.model, self._subject.hooked.device
        # Padding is masked, so any id serves.
        ids, mask = (
            pad_sequence([torch.tensor(row) for row in some], batch_first=True).to(device)
            for some in (rows, [[1] * len(row) for row in rows])
        )
        some = store is not None
        with experience(model, session=self._names, store=store) if some else nullcontext():
            # Without a cache: a call is one interaction, whatever came before it in the cache.
            logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits

    def _ids(self, text: str) -> list[int]:
        tokenizer = self._subject.hooked.tokenizer
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _scores(
    logits: Tensor, pairs: Sequence[tuple[list[int], list[int]]]
) -> tuple[Tensor, Array, Array]:
    """Logits after each query, and the log-probability and correctness of each answer."""
    table = logits.float().log_softmax(-1).cpu()
    last = torch.stack([logits[row, len(query) - 1].cpu() for row, (query, _) in enumerate(pairs)])
    logprob, correct = np.zeros(len(pairs)), np.zeros(len(pairs))
    for row, (query, answer) in enumerate(pairs):
        # The logits at p predict token p + 1: those of an answer of n tokens start at the query's
        # last token and end before the answer's.
        rows = table[row, len(query) - 1 : len(query) + len(answer) - 1]
        labels = torch.tensor(answer)
        logprob[row] = float(rows.gather(-1, labels[:, None]).sum())
        correct[row] = float((rows.argmax(-1) == labels).all())
    return last, logprob, correct


def _copy(store: Any, subject: Subject) -> Any:
    """The experience as it is now, in a store of its own."""
    from ed_interp.adapters.bias_injection.experience import Experience

    # Through the public file format, which is known to keep everything.
    with tempfile.TemporaryDirectory() as folder:
        return Experience.load(store.save(Path(folder) / "experience.safetensors"), subject.model)


def _decay(
    answers: Sequence[_Answers], before: _Answers, pauses: Sequence[float]
) -> tuple[Decay, ...]:
    """The effect of the experience after each pause, over that after the first; () if none."""
    pairs = [zip(each.logits, before.logits, strict=True) for each in answers]
    sizes = [float(np.mean([float((a - b).abs().mean()) for a, b in each])) for each in pairs]
    # Untrained feedback leaves no effect, of which no share could be left; also if it is NaN.
    if not sizes[0] > 0:
        return ()
    return tuple(Decay(float(p), size / sizes[0]) for p, size in zip(pauses, sizes, strict=True))


def _half_life(decay: Sequence[Decay]) -> float | None:
    for first, second in itertools.pairwise(decay):
        if first.effect > 0.5 >= second.effect > 0:
            # An exponential decay is a straight line in the logarithm of the effect.
            low, high = math.log(first.effect), math.log(second.effect)
            share = (math.log(0.5) - low) / (high - low)
            return first.elapsed + share * (second.elapsed - first.elapsed)
    return None


def _turn(
    turn: int, score: _Answers, first: _Answers, before: _Answers, level: float, seed: int
) -> Turn:
    # Paired: sessions differ far more from each other than from turn to turn.
    change = score.logprob - first.logprob
    own, gain = (
        map(float, (each.mean(), *bootstrap_interval(each, level=level, seed=seed)))
        for each in (score.logprob, change)
    )
    others = float(score.correct.mean()), float(before.logprob.mean())
    fields: Any = (turn, *own, *others, *gain, len(change))
    return Turn(*fields)


def _same(first: _Answers, second: _Answers) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.logits, second.logits, strict=True))
