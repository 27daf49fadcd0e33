"""What was built and how it was trained: the implementation, and appendices A and C.

Cost: none.
"""

from __future__ import annotations

from collections.abc import Sequence

from ed_interp.eval.paper.discussion import STUDY
from ed_interp.eval.paper.document import (
    Block,
    Code,
    Gap,
    Heading,
    Paragraph,
    Parts,
    Section,
    Table,
    gap,
    paragraph,
)
from ed_interp.eval.paper.records import CONFIG, TRAINING, WEIGHTS, Place, Record
from ed_interp.eval.paper.tables import chosen, column, pairs, table

TRAIN = "ed-interp adapter train --out RUN"
LAYER = "y_t = W x_t + (alpha/r) B A x_t + b + V s_t"
NODES = "s_t = exp(-1/tau) s_{t-1} + R x_{t-1}"
_LEFT_OUT = ("format", "version")


def adapter_places(records: Sequence[Record]) -> list[tuple[Record, Place]]:
    """Where the records hold configurations of adapters, each with its record."""
    found = []
    for record in records:
        if record.kind == "comparison":
            found.append((record, record.place("treated", "adapter")))
        elif record.kind in ("trained adapter", "adapter"):
            found.append((record, record.place(file=CONFIG)))
    return [(record, place) for record, place in found if place.there]


def implementation(records: Sequence[Record]) -> Section:
    """The models, what was added to them, and the software."""
    blocks: list[Block] = []
    models = [model for record in records if (model := _model(record)) is not None]
    if models:
        columns = [
            column("model", "name"), column("architecture", "family", words=True),
            column("blocks", "n_layers"), column("width", "d_model"),
            column("numbers", "dtype", words=True), column("basis", words=True),
            column("fingerprint", words=True),
        ]  # fmt: skip
        known = {place["fingerprint"].raw or place["name"].raw: place for place in models}
        blocks += table(("The frozen models",), list(known.values()), columns)
    else:
        blocks.append(gap("a model", "ed-interp emergence --out RUN"))
    kinds = {str(place["peft_type"].raw).upper() for _, place in adapter_places(records)}
    for record in records:
        if record.kind == "controlled study":
            kinds |= {str(a["method"].raw).upper().replace("-", "_") for a in record.place("arms")}
    if "BIAS_INJECTION" in kinds:
        blocks.append(
            paragraph(
                "The adapter adds nodes to linear layers. A layer ",
                Code("y = W x"),
                " becomes ",
                Code(LAYER),
                ", and its nodes follow ",
                Code(NODES),
                " along the sequence: they read what the layer was given before, and decay. The "
                "weights of the model stay as they are.",
            )
        )
    if "LORA" in kinds:
        blocks.append(paragraph("The low-rank control is ", Code("y = W x + (alpha/r) B A x"), "."))
    blocks += _arms(records)
    first = next((r for r in records if r.place("environment", "versions").there), None)
    if first is None:
        blocks.append(gap("the software's versions", STUDY))
    else:
        blocks += pairs(("Software of the first record that names it",), first.place("environment"))
    return Section("implementation", "Implementation", tuple(blocks))


def _model(record: Record) -> Place | None:
    paths = (("model",), ("control", "model"), ("settings", "model"))
    for path in paths:
        place = record.place(*path)
        if isinstance(place.raw, dict):
            return place
    return None


def _arms(records: Sequence[Record]) -> list[Block]:
    found: list[Block] = []
    for record in records:
        if record.kind == "controlled study":
            head = record.place()
            columns = [
                column("arm", "name"), column("what it is for", "about", words=True),
                column("method", words=True), column("trained parameters", "parameters", form=","),
            ]  # fmt: skip
            caption = ("Arms of the study on ", head["problem"]["name"].show(), ", ")
            name = head["model"]["name"].show()
            found += table((*caption, name), list(head["arms"]), columns)
    return found


def appendix_a(records: Sequence[Record]) -> Section:
    """Architecture changes, node parameters, neutral state."""
    blocks: list[Block] = []
    places = adapter_places(records)
    if not places:
        blocks.append(gap("an adapter's configuration", TRAIN))
    for record, place in places:
        blocks.append(Heading(_adapter_title(record)))
        blocks += pairs(("Changes of the architecture, and nodes",), place, but=_LEFT_OUT)
        weights = record.place(file=WEIGHTS)
        if weights.there:
            blocks += pairs(("Parameters as they were trained: number, norm, time constants",),
                            weights, but=("config", "layers", "folder"))  # fmt: skip
    if not any(record.place(file=WEIGHTS).there for record in records):
        blocks.append(gap("trained node parameters, and their time constants,", TRAIN))
    for record in records:
        if record.kind == "controlled study":
            blocks += _options(record)
    return Section("configuration", "Configuration data", (*blocks, *_neutral(records)), "A")


def _adapter_title(record: Record) -> Parts:
    if record.kind == "comparison":
        name, model = record.place("treated", "name"), record.place("control", "name")
        return ("The adapter that was compared: ", name.show(), " on ", model.show())
    if record.kind == "trained adapter":
        return ("Trained adapter ", record.place("name").show())
    return ("Adapter of ", record.place("base_model_name_or_path").show())


def _options(record: Record) -> list[Block]:
    head = record.place()
    rows: list[tuple[Parts, ...]] = []
    for arm in head["arms"]:
        options: Parts = tuple(
            part
            for place, option in enumerate(arm["options"])
            for part in (", " if place else "", Code(str(option.path[-1])), " ", option.show())
        )
        marks = (arm["equal_parameters"].show(),), (arm["shuffled_time"].show(),)
        rows.append(((arm["name"].show(),), (arm["method"].show(),), options or ("none",), *marks))
    heads = ("arm", "method", "options", "as many parameters as the tested", "time is shuffled")
    caption = ("Configuration of the arms on ", head["problem"]["name"].show())
    return [Table(caption, heads, tuple(rows), frozenset({1, 2, 3, 4}))]


def _neutral(records: Sequence[Record]) -> list[Block]:
    found: list[Block] = [Heading(("Neutral state",))]
    held = [record for record in records if record.place("identity").there]
    for record in held:
        lead = ("Before training, the adapter against its base, bit for bit: ",)
        name = record.place("treated", "name").show()
        found += pairs((*lead, name), record.place("identity"))
    for record in records:
        if record.kind == "controlled study":
            head = record.place()
            rows = [row for row in head["trials"] if row["neutral"].there]
            columns = [column("arm"), column("seed"), column("neutral", words=True)]
            if rows:
                caption = ("Neutral before training, on ", head["problem"]["name"].show())
                found += table(caption, rows, columns)
    if len(found) == 1:
        found.append(gap("the neutral state before training", STUDY))
    return found


def appendix_c(records: Sequence[Record]) -> Section:
    """Decay functions, learning rates, update rules, which nodes."""
    blocks: list[Block] = [
        Heading(("Decay functions",)),
        paragraph(
            "Along the sequence a node decays by ",
            Code("exp(-1/tau)"),
            " per token, tau being its time constant; between interactions an experience decays "
            "by ",
            Code("exp(-elapsed/tau)"),
            ", in turns or seconds. The constants of each adapter are in appendix A.",
        ),
        *_experience(records),
        Heading(("Update rules and learning rates",)),
        paragraph(
            "Only the adapter's parameters are trained, in groups with learning rates of their "
            "own, as ",
            Code("ed_interp.adapters.training.groups.parameter_groups"),
            " divides them: low-rank matrices (",
            Code("lr_lora"),
            "), nodes and bias (",
            Code("lr_nodes"),
            "), time constants (",
            Code("lr_tau"),
            ").",
        ),
    ]
    trained = [record for record in records if record.kind == "trained adapter"]
    if not trained:
        blocks.append(gap("an adapter's training, with its update rule and schedule,", TRAIN))
    for record in trained:
        head = record.place(file=TRAINING)
        name = head["name"].show()
        blocks += pairs(("Training of ", name), head["training"])
        blocks += pairs(("How it went: ", name), head, but=(
            *_LEFT_OUT, "model", "adapter", "training", "history", "environment", "data", "card",
            "name"))  # fmt: skip
        columns = [
            column("step"), column("epoch", form=".3g"), column("loss", form=".4g"),
            column("held-out loss", "eval_loss", form=".4g"),
            column("gradient norm", "grad_norm", form=".3g"),
            column("learning rate", "learning_rate", form=".3g"),
        ]  # fmt: skip
        blocks += table(("Losses in nats a token: ", name), list(head["history"]), columns)
    studies = [record for record in records if record.kind == "controlled study"]
    if not studies:
        blocks.append(gap("a learning-rate sweep", STUDY))
    for record in studies:
        blocks += _sweep(record)
    return Section("protocols", "Fine-tuning protocols", tuple(blocks), "C")


def _sweep(record: Record) -> list[Block]:
    head = record.place()
    where = (head["problem"]["name"].show(), ", ", head["model"]["name"].show())
    found: list[Block] = [*pairs(("Plan of the study on ", *where), head["plan"])]
    best: list[tuple[Parts, ...]] = [
        ((arm["name"].show(),), (head["best"][arm["name"].raw].show("g"),))
        for arm in head["arms"]
        if head["best"][arm["name"].raw].there
    ]
    columns = [
        column("arm"), column("rate", form="g"), column("held-out loss", "eval_loss", form=".4g"),
        column("steps"), column("seconds", form=".3g"), column("status", words=True),
    ]  # fmt: skip
    swept = chosen(head["trials"], sweep=True)
    if swept:
        caption = ("Sweep on ", *where, ": loss on held-out training examples, nats per token")
        found += table(caption, swept, columns)
        found.append(Table(("The rate each arm was compared at",), ("arm", "rate"), tuple(best)))
    else:
        found.append(Gap(("This study holds no sweep: nothing was trained in it.",)))
    return found


def _experience(records: Sequence[Record]) -> list[Block]:
    found: list[Block] = []
    for record in records:
        place = record.place("adaptivity")
        if record.kind != "comparison" or not place.there:
            continue
        found.append(
            Paragraph(
                (
                    "Of ",
                    record.place("treated", "name").show(),
                    ", decay of an experience: tau ",
                    place["tau"].show(".3g"),
                    ", half-life expected from it ",
                    place["half_life_expected"].show(".3g"),
                    ", measured ",
                    place["half_life"].show(".3g"),
                    "; neutral after a reset: ",
                    place["reset_is_neutral"].show(),
                    ".",
                )
            )
        )
    return found or [gap("a session with feedback, and its decay,", STUDY)]
