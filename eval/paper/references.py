"""The works that a paper cites: those that the method of a given record stands on, and no others.

Cost: none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from ed_interp.eval.paper.document import Block, Bullets, Citation, Gap, Part, Section
from ed_interp.eval.paper.records import Record


@dataclasses.dataclass(frozen=True)
class Work:
    """A work, as it is listed."""

    authors: str
    title: str
    where: str
    """An arXiv identifier; a place and year where there is none."""


WORKS = {
    "adapter": Work(
        "",
        "Dynamic Model Tuning Based on Extended Input/Output Layer",
        "the paper of the bias-injection adapter; no arXiv identifier",
    ),
    "lora": Work(
        "E. J. Hu and others",
        "LoRA: Low-Rank Adaptation of Large Language Models",
        "arXiv:2106.09685",
    ),
    "emergence": Work(
        "H. Chen, X. Yang, J. Zhu, W. Wang",
        "Quantifying Emergence in Large Language Models",
        "arXiv:2405.12617",
    ),
    "smoothed": Work(
        "Z. Goldfeld, E. van den Berg, K. Greenewald, I. Melnyk, N. Nguyen, B. Kingsbury, "
        "Y. Polyanskiy",
        "Estimating Information Flow in Deep Neural Networks",
        "arXiv:1810.05728",
    ),
    "bounds": Work(
        "D. McAllester, K. Stratos",
        "Formal Limitations on the Measurement of Mutual Information",
        "arXiv:1811.04251",
    ),
    "metrics": Work(
        "R. Schaeffer, B. Miranda, S. Koyejo",
        "Are Emergent Abilities of Large Language Models a Mirage?",
        "arXiv:2304.15004",
    ),
    "seeds": Work(
        "R. Zhao, T. Qin, D. Alvarez-Melis, S. Kakade, N. Saphra",
        "Random Scaling of Emergent Capabilities",
        "arXiv:2502.17356",
    ),
    "spike-slab": Work(
        "F. Tonolini, B. S. Jensen, R. Murray-Smith",
        "Variational Sparse Coding",
        "2019; no arXiv identifier",
    ),
}
"""Every work that can be cited, by key."""


def references(records: Sequence[Record]) -> Section:
    """The list of works that these records rely on."""
    keys = list(dict.fromkeys(key for record in records for key in _relied_on(record)))
    works = [WORKS[key] for key in WORKS if key in keys]
    items: list[tuple[Part, ...]] = [(Citation(key),) for key in WORKS if key in keys]
    block: Block = Bullets(tuple(items))
    if not works:
        block = Gap(("The records that were given name no method with a work of reference.",))
    return Section("references", "References", (block,))


def _relied_on(record: Record) -> Iterator[str]:
    head = record.place()
    if record.kind == "controlled study":
        yield "metrics"
        yield "seeds"
        yield from _methods([place["method"].raw for place in head["arms"]])
        if head["plan"]["emergence"].raw:
            yield from ("emergence", "smoothed")
    if record.kind == "comparison":
        yield "metrics"
        if any(place["family"].raw == "emergence" for place in head["effects"]):
            yield from ("emergence", "smoothed")
        kind = head["treated"]["adapter"]["peft_type"].raw
        yield from _methods([kind])
    if record.kind in ("trained adapter", "adapter"):
        yield from _methods([head["method"].raw, head["peft_type"].raw])
    if record.kind == "emergence curve":
        yield from ("emergence", "metrics")
        yield from _estimator(str(head["estimator"].raw))
    if record.kind == "calibration":
        yield from _estimator(str(head["estimator"].raw))
    if record.kind.startswith("dictionary") and "spike" in str(head["architecture"].raw):
        yield "spike-slab"


def _methods(names: Sequence[object]) -> Iterator[str]:
    for name in names:
        method = str(name).lower().replace("_", "-")
        if method == "bias-injection":
            yield "adapter"
        elif method == "lora":
            yield "lora"


def _estimator(name: str) -> Iterator[str]:
    if name == "smoothed":
        yield "smoothed"
    elif name in ("mine", "infonce", "nwj", "smile"):
        yield "bounds"
