"""Appendix B: where in the package each part of the method is. A test resolves every pointer.

Cost: none.
"""

from __future__ import annotations

from ed_interp.eval.paper.document import Code, Parts, Section, Table, paragraph

POINTERS: tuple[tuple[str, str], ...] = (
    ("Loading a model under hooks", "ed_interp.models.load:load"),
    ("Reading the residual stream", "ed_interp.streams.capture:capture"),
    ("Writing to the residual stream", "ed_interp.streams.injection:inject"),
    ("The adapter's options", "ed_interp.adapters.bias_injection:BiasInjectionConfig"),
    ("The adapted linear layer", "ed_interp.adapters.bias_injection:BiasInjectionLayer"),
    ("The tuner", "ed_interp.adapters.bias_injection:BiasInjectionModel"),
    ("The recurrence of the nodes", "ed_interp.adapters.bias_injection.scan:states"),
    (
        "Experience between interactions",
        "ed_interp.adapters.bias_injection.experience:Experience",
    ),
    (
        "The static part as a plain low-rank adapter",
        "ed_interp.adapters.bias_injection.export:export_lora",
    ),
    ("Training, and the check that the base stays", "ed_interp.adapters.training:train"),
    ("Options of training", "ed_interp.adapters.training:TrainingOptions"),
    ("Learning rate of each group", "ed_interp.adapters.training:parameter_groups"),
    ("The frozen weights, by hash", "ed_interp.adapters.training:FrozenWeights"),
    ("The paired comparison", "ed_interp.eval.compare:compare"),
    ("The before-state is the identity", "ed_interp.eval.compare.identity:check_identity"),
    ("Forgetting on neutral text", "ed_interp.eval.compare.texts:read_texts"),
    ("Sessions with feedback", "ed_interp.eval.compare.adaptivity:measure_adaptivity"),
    ("What each side costs", "ed_interp.eval.compare.cost:measure_cost"),
    ("The arms of a controlled study", "ed_interp.eval.study.arms:ARMS"),
    ("Running a controlled study", "ed_interp.eval.study.experiment:run_experiment"),
    ("Means over seeds, and arms compared", "ed_interp.eval.study.summary:summarise"),
    ("Level of the intervals over seeds", "ed_interp.eval.study.summary:LEVEL"),
    ("Paired differences and intervals", "ed_interp.statistics:paired_difference"),
    ("Correction for the number of tests", "ed_interp.statistics:holm"),
    ("Emergence per block and shot count", "ed_interp.probes.emergence.emergence:emergence"),
    (
        "The estimator behind noise",
        "ed_interp.probes.emergence.estimators.smoothed:Smoothed",
    ),
    ("What the flags of a curve mean", "ed_interp.probes.emergence.curve:FLAGS"),
    ("This paper", "ed_interp.eval.paper:write_paper"),
)
"""What it does, and ``module:NAME``."""


def appendix_b() -> Section:
    """The pointers as a table."""
    rows: list[tuple[Parts, ...]] = []
    for what, pointer in POINTERS:
        module, name = pointer.split(":")
        rows.append(((what,), (Code(module),), (Code(name),)))
    heads = ("part", "module", "name")
    table = Table(("Where each part of the method is",), heads, tuple(rows), frozenset({1, 2}))
    about = paragraph("The modules of the package that made the records, and the public names.")
    return Section("code", "Pointers to the code", (about, table), "B")
