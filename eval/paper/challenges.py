"""The limits of what the records say, and appendix E: what went wrong on the way.

Cost: none; unfinished runs are looked for beside the given folders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ed_interp.eval.paper.discussion import STUDY
from ed_interp.eval.paper.document import (
    Block,
    Bullets,
    Code,
    Heading,
    Parts,
    Quote,
    Section,
    gap,
    key_of,
    listed,
    paragraph,
)
from ed_interp.eval.paper.records import Place, Record
from ed_interp.eval.paper.tables import chosen, column, table

_MOST = 40


def limits(records: Sequence[Record]) -> Section:
    """What these records cannot show."""
    items: list[Parts] = []
    studies = [record for record in records if record.kind == "controlled study"]
    for record in studies:
        plan = record.place("plan")
        items.append(
            ("On ", record.place("problem", "name").show(), " the frozen model was ",
             record.place("model", "name").show(), ", and the arms were run with the seeds ",
             plan["seeds"].show(), ", ", plan["steps"].show(), " steps of training and ",
             plan["prompts"].show(), " prompts: nothing is said of other models, tasks or "
             "lengths of training.")
        )  # fmt: skip
        items.append(_untested(record))
    for record in records:
        if record.kind == "comparison":
            items += _of_comparison(record)
        if record.kind == "emergence curve":
            items += _of_curve(record)
    if not studies:
        items.append(
            ("No controlled study was given, so no statement about baselines is possible here.",)
        )
    kinds = {record.kind for record in records}
    for kind, why in (
        ("calibration", "the estimator of information was not checked against known truth"),
        ("dictionary measurement", "no features were measured"),
        ("trained adapter", "the course of a training is not documented"),
    ):
        if kind not in kinds:
            items.append((f"No record of kind {kind} was given: {why}.",))
    return Section("limits", "Limits", (Bullets(tuple(item for item in items if item)),))


def _untested(record: Record) -> Parts:
    head = record.place()
    tested = head["tested"].raw
    rows = [row for row in head["summary"] if row["metric"].raw == "accuracy"]
    names = [(r["arm"].show(),) for r in rows if r["p_holm"].raw is None and r["arm"].raw != tested]
    if not names:
        return ()
    return ("Against ", *listed(names), " accuracy could not be tested over seeds.")


def _of_comparison(record: Record) -> Iterator[Parts]:
    head = record.place()
    identity = head["identity"]
    who: Parts = ("In the comparison of ", head["treated"]["name"].show())
    if not identity.there:
        yield (*who, ", whether the before-state is the identity was not looked at.")
    elif identity["neutral"].raw is not True:
        yield (*who, ", the before-state as the identity: ", identity["neutral"].show(), ".")
    if not head["cost"].there:
        yield (*who, ", costs were not measured.")
    if not head["features"].there:
        yield (*who, ", no dictionary was given, so changed features are unknown.")


def _of_curve(record: Record) -> Iterator[Parts]:
    head = record.place()
    who: Parts = ("The curve of ", head["model"].show(), " on ", head["task"].show())
    yield (*who, " is that of one estimator, ", head["estimator"].show(), ", at noise ",
           head["noise"].show(".3g"), ", on ", head["settings"]["population"]["prompts"].show(),
           " prompts: E depends on all of them.")  # fmt: skip
    if any(row["flags"].there for row in head["rows"]):
        yield (*who, " has flagged rows; appendix E lists them.")


def appendix_e(records: Sequence[Record]) -> Section:
    """Failures, divergences, retries, unfinished runs, flags: as the records hold them."""
    blocks: list[Block] = [
        paragraph("Only what the records hold is listed; what was never written down is not here.")
    ]
    blocks += _block("Failures and retries", [i for r in records for i in _failures(r)],
                     "The records hold no failed and no repeated trial.")  # fmt: skip
    for record in records:
        if record.kind == "controlled study":
            rows = [row for row in record.place("trials") if _troubled(row)]
            columns = [
                column("arm"), column("rate", form="g"), column("seed"),
                column("status", words=True), column("attempt"), column("error", words=True),
            ]  # fmt: skip
            if rows:
                where = record.place("problem", "name").show()
                blocks += table(("Trials that failed or were repeated, ", where), rows, columns)
    blocks += _block("Divergences and early stops", [i for r in records for i in _training(r)],
                     "No training stopped early or ended above its best.")  # fmt: skip
    blocks += _block("The neutral state", [i for r in records for i in _identity(r)],
                     "No record holds a before-state or a reset that was not neutral.")  # fmt: skip
    blocks += _block("Flags", [i for r in records for i in _flags(r)],
                     "No record holds a flag.")  # fmt: skip
    blocks += _block("Unfinished runs beside these", [(Code(n),) for n in _unfinished(records)],
                     "There is no unfinished run beside the folders that were given.")  # fmt: skip
    if not any(record.kind in ("controlled study", "trained adapter") for record in records):
        blocks.append(gap("trials or trainings", STUDY))
    return Section("challenges", "Log of challenges", tuple(blocks), "E")


def _block(title: str, items: Sequence[Parts], otherwise: str) -> list[Block]:
    if not items:
        return [Heading((title,)), paragraph(otherwise)]
    rest: list[Block] = []
    if len(items) > _MOST:
        rest.append(paragraph("More of them stand in the records."))
    return [Heading((title,)), Bullets(tuple(items[:_MOST])), *rest]


def _troubled(row: Place) -> bool:
    return row["status"].raw != "done" or (row["attempt"].raw or 1) > 1


def _failures(record: Record) -> Iterator[Parts]:
    if record.kind != "controlled study":
        return
    head = record.place()
    where: Parts = (" on ", head["problem"]["name"].show())
    for row in head["trials"]:
        if row["status"].raw != "done":
            yield ("The arm ", row["arm"].show(), *where, " failed at rate ", row["rate"].show("g"),
                   " and seed ", row["seed"].show(), ": ", row["error"].show())  # fmt: skip
        elif (row["attempt"].raw or 1) > 1:
            yield ("The arm ", row["arm"].show(), *where, " at rate ", row["rate"].show("g"),
                   " and seed ", row["seed"].show(), " was finished at attempt ",
                   row["attempt"].show(), ".")  # fmt: skip
    done = {row["arm"].raw for row in chosen(head["trials"], sweep=False, status="done")}
    for arm in head["arms"]:
        if arm["name"].raw not in done:
            yield ("The arm ", arm["name"].show(), *where, " has no finished trial: it is in no "
                   "comparison.")  # fmt: skip


def _training(record: Record) -> Iterator[Parts]:
    if record.kind != "trained adapter":
        return
    head = record.place()
    name: Parts = ("The training of ", head["name"].show())
    if head["stopped"].raw != "all of them":
        yield (
            *name,
            " ended after ",
            head["steps"].show(),
            " steps: ",
            head["stopped"].show(),
            ".",
        )
    held = [row for row in head["history"] if isinstance(row["eval_loss"].raw, (int, float))]
    if held:
        best = min(held, key=lambda row: row["eval_loss"].raw)
        if held[-1]["eval_loss"].raw > best["eval_loss"].raw:
            yield (*name, " reached its lowest held-out loss, ", best["eval_loss"].show(".4g"),
                   ", at step ", best["step"].show(), ", and had ",
                   held[-1]["eval_loss"].show(".4g"), " at the end.")  # fmt: skip


def _identity(record: Record) -> Iterator[Parts]:
    if record.kind == "controlled study":
        for row in record.place("trials"):
            if row["neutral"].raw is False:
                yield ("The arm ", row["arm"].show(), " at seed ", row["seed"].show(),
                       " was not neutral before training.")  # fmt: skip
    if record.kind != "comparison":
        return
    head = record.place()
    identity, who = head["identity"], head["treated"]["name"].show()
    if identity["neutral"].raw is False:
        yield (who, " was not neutral before training: its logits differed by up to ",
               identity["largest_difference"].show(".3g"), ".")  # fmt: skip
    if identity["base_is_control"].raw is False:
        yield ("With ", who, " switched off, the model was not the control.")
    if identity["note"].there:
        yield ("On the neutral state of ", who, ": ", identity["note"].show())
    if head["adaptivity"]["reset_is_neutral"].raw is False:
        yield ("After a reset ", who, " was not as before the first turn.")


def _flags(record: Record) -> Iterator[Parts]:
    """Each flag once per record, with its meaning and the first places that carry it."""
    from ed_interp.probes.emergence.curve import FLAGS

    carried: dict[str, list[Place]] = {}
    for place in _flag_places(record.place()):
        carried.setdefault(str(place.raw), []).append(place)
    for name, places in carried.items():
        meaning: Parts = ()
        if name in FLAGS:
            meaning = (": ", Quote(FLAGS[name], "ed_interp.probes.emergence.curve:FLAGS"))
        rows = [_row_of(record, place) for place in places[:6]]
        more = ", and further rows" if len(places) > 6 else ""
        yield (places[0].show(), f", in the {record.kind}, at ", *listed(rows), more, *meaning)


def _row_of(record: Record, place: Place) -> Parts:
    row = record.place(*place.path[:-2])
    if row["layer"].there and row["shots"].there:
        return ("block ", row["layer"].show(), " and shot count ", row["shots"].show())
    return (Code(key_of(place.path[:-1])),)


def _flag_places(place: Place) -> Iterator[Place]:
    """Every single flag below a place."""
    if isinstance(place.raw, dict):
        for inner in place:
            if inner.path[-1] == "flags" and isinstance(inner.raw, list):
                yield from (flag for flag in inner if isinstance(flag.raw, str))
            elif isinstance(inner.raw, (dict, list)):
                yield from _flag_places(inner)
    elif isinstance(place.raw, list):
        for inner in place:
            if isinstance(inner.raw, (dict, list)):
                yield from _flag_places(inner)


def _unfinished(records: Sequence[Record]) -> list[str]:
    """Names of runs beside the given ones that were begun and not finished."""
    parents = {Path(record.folder).expanduser().resolve().parent for record in records}
    found = {path.name for parent in parents for path in parent.glob(".*.partial")}
    return sorted(name[1:].removesuffix(".partial") for name in found)
