"""Appendix F: what was changed, on what data, what else changed with it, and how to undo it.

Cost: none.
"""

from __future__ import annotations

from collections.abc import Sequence

from ed_interp.eval.study.summary import LEVEL
from ed_interp.eval.paper.discussion import STUDY, effect_in_words, importance, supported
from ed_interp.eval.paper.document import (
    Block,
    Bullets,
    Code,
    Gap,
    Heading,
    Parts,
    Section,
    gap,
    listed,
    paragraph,
)
from ed_interp.eval.paper.methods import TRAIN
from ed_interp.eval.paper.records import Place, Record
from ed_interp.eval.paper.tables import between, chosen


def appendix_f(records: Sequence[Record]) -> Section:
    """The brief on ethics and bias."""
    blocks: list[Block] = [
        Heading(("What behaviour was changed",)),
        *_or_gap(_behaviour(records), "a changed behaviour"),
        Heading(("On what data",)),
        *_or_gap(_data(records), "the data"),
        Heading(("Measured side effects",)),
        *_or_gap(_effects(records), "side effects"),
        paragraph(
            "Side effects were looked for in the relations and texts named in appendix D and "
            "nowhere else. No record here measures social bias, toxicity or harm to people; "
            "an adapter must not be used where these matter before they have been measured."
        ),
        Heading(("How to undo it",)),
        *_undo(records),
    ]
    return Section("ethics", "Ethics and bias", tuple(blocks), "F")


def _or_gap(items: Sequence[Parts], what: str) -> list[Block]:
    return [Bullets(tuple(items))] if items else [gap(what, STUDY)]


def _behaviour(records: Sequence[Record]) -> list[Parts]:
    found: list[Parts] = []
    for record in records:
        head = record.place()
        if record.kind == "controlled study":
            found.append(
                ("The arms were to make ", head["model"]["name"].show(), " ",
                 head["problem"]["about"].show(), ".")
            )  # fmt: skip
        elif record.kind == "comparison" and not record.parent:
            found.append((head["treated"]["name"].show(), " was asked ", head["task"].show(), "."))
        elif record.kind in ("trained adapter", "adapter"):
            about = head["card"]["description"]
            name = head["name"] if head["name"].there else head["base_model_name_or_path"]
            told: Parts = (": ", about.show(), ".")
            if not about.there:
                told = (": what it is for was not stated (", Code("--description"), " says it).")
            found.append(("The adapter ", name.show(), *told))
    return found


def _data(records: Sequence[Record]) -> list[Parts]:
    found: list[Parts] = []
    for record in records:
        head = record.place()
        if record.kind == "controlled study":
            problem = head["problem"]
            known = [key for key in ("trained", "asked", "examples", "held_out") if
                     problem[key].there]  # fmt: skip
            numbers = listed([(f"{key.replace('_', ' ')} ", problem[key].show()) for key in known])
            found.append(("The pairs of ", problem["name"].show(), ", for ",
                          head["model"]["name"].show(), ": ", *numbers,
                          "; what was asked was not trained on."
                          if problem["trained"].there else "."))  # fmt: skip
        elif record.kind == "trained adapter":
            data, card = head["data"], head["card"]
            licence: Parts = (card["data_licence"].show(),)
            if not card["data_licence"].there:
                licence = ("not stated (", Code("--data-licence"), " says it)")
            found.append(
                (data["name"].show(), ": ", data["training"].show(), " training and ",
                 data["held_out"].show(), " held-out examples, hash ", data["sha256"].show(),
                 "; licence of the data: ", *licence)
            )  # fmt: skip
    return found


def _effects(records: Sequence[Record]) -> list[Parts]:
    found: list[Parts] = []
    for record in records:
        head = record.place()
        if record.kind == "controlled study":
            found += _of_study(head)
        elif record.kind == "comparison":
            found.append(_of_comparison(record))
    return found


def _of_study(head: Place) -> list[Parts]:
    tested = head["tested"]
    where: Parts = (" on ", head["problem"]["name"].show(), ", ", head["model"]["name"].show())
    rows = chosen(head["trials"], arm=tested.raw, sweep=False, status="done")
    harmed = [row for row in rows if row["harmed"].there]
    found: list[Parts] = []
    if harmed:
        seeds = listed([("seed ", r["seed"].show(), ": ", r["harmed"].show()) for r in harmed])
        found.append((tested.show(), *where, ", made worse at the corrected level: ", *seeds, "."))
    elif rows:
        found.append((tested.show(), *where, ": no relation or text became worse at the corrected "
                      "level, which does not show that none did."))  # fmt: skip
    row = next(iter(chosen(head["summary"], arm=tested.raw, metric="forgetting")), None)
    if row is None:
        return found
    return [*found, (*_forgetting(head, row), *where, ".")]


def _forgetting(head: Place, row: Place) -> Parts:
    """The rise of the cross-entropy over seeds, and whether it holds after the correction."""
    rise: Parts = (row["mean"].show("+.3g"), " nats per token")
    if row["ci_low"].there:
        rise = (*rise, " (", *between(row, "ci_low", "ci_high", "+.3g"), ")")
    what = "The cross-entropy on neutral text changed over seeds by "
    frozen = next(iter(chosen(head["summary"], arm="frozen", metric="forgetting")), None)
    if frozen is None or not frozen["p_holm"].there:
        return (what, *rise, ", which was not tested against the frozen model,")
    held = supported(frozen, "difference_low", "difference_high", 1 - LEVEL)
    verb = "is supported" if held else "is not supported"
    told = f", which {verb} against the frozen model after the correction (corrected p "
    return (what, *rise, told, frozen["p_holm"].show(".2g"), ")")


def _of_comparison(record: Record) -> Parts:
    head = record.place()
    alpha = getattr(record.loaded, "alpha", 1 - LEVEL)
    worse = [
        place
        for place, effect in zip(head["effects"], record.loaded.effects, strict=True)
        if effect.verdict(alpha) == "worse" and supported(place, "ci_low", "ci_high", alpha)
    ]
    worse.sort(key=importance)
    who: Parts = ("By prompt, ", head["treated"]["name"].show(), " on ", head["task"].show())
    if not worse:
        return (*who, ": no effect became worse at the corrected level.")
    told = [effect_in_words(place) for place in worse]
    more = (", and more in appendix D",) if len(told) > 8 else ()
    return (*who, ", worse: ", *listed(told[:8]), *more, ".")


def _undo(records: Sequence[Record]) -> list[Block]:
    items: list[Parts] = [
        ("The weights of an adapter lie in a folder of their own: load the model without it, or "
         "switch it off for a while with ", Code("with model.disable_adapter(): ..."), "."),
        ("An experience is forgotten with ",
         Code("ed_interp.adapters.bias_injection.experience.Experience.reset"), "."),
        ("A direction is written inside a context and is gone after it: ",
         Code("ed_interp.streams.injection.inject"), "."),
    ]  # fmt: skip
    for record in records:
        head = record.place()
        if record.kind == "trained adapter":
            items.append(
                ("The base model of ", head["name"].show(), " had the same weights before and "
                 "after its training, hash ", head["base_sha256"].show(), ".")
            )  # fmt: skip
        if record.kind == "comparison" and head["identity"].there:
            items.append(
                ("On ", head["task"].show(), ", with ", head["treated"]["name"].show(),
                 " switched off, the model ", head["control"]["name"].show(),
                 " is as before, bit for bit: ", head["identity"]["base_is_control"].show(), ".")
            )  # fmt: skip
        if record.kind == "comparison" and head["adaptivity"].there:
            items.append(
                ("There, after a reset of its experience it is as before the first turn: ",
                 head["adaptivity"]["reset_is_neutral"].show(), ".")
            )  # fmt: skip
    found: list[Block] = [Bullets(tuple(items))]
    if not any(record.place("identity").there for record in records):
        found.append(Gap(("No record shows that switching the adapter off gives back the control; ",
                          Code(STUDY), " makes one.")))  # fmt: skip
    if not any(record.kind == "trained adapter" for record in records):
        found.append(gap("the base model's weights before and after a training", TRAIN))
    return found
