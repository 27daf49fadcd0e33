"""Sessions with feedback: an experience decays by its tau, and a reset is neutral."""

import pytest

from ed_interp.errors import InvalidInputError
from ed_interp.eval.compare.adaptivity import measure_adaptivity
from ed_interp.eval.compare.subjects import open_subject
from ed_interp.prompts.tasks import LabelledTask, builtin_task


@pytest.fixture
def remembering(adapted):
    from ed_interp.adapters.bias_injection import BiasInjectionConfig

    def build(*, scale, **options):
        config = BiasInjectionConfig(r=0, use_bias=False, n_nodes=3, tau=64.0, **options)
        return open_subject(adapted(config, scale=scale))

    return build


def test_half_life_is_that_of_tau(remembering):
    # Weights so small that the logits answer in proportion.
    subject = remembering(scale=1e-3)
    result = measure_adaptivity(
        subject, builtin_task("country-capital"), sessions=6, turns=2, probes=1, tau=4.0
    )
    assert result.half_life_expected == pytest.approx(2.7726, abs=1e-4)
    assert result.half_life == pytest.approx(result.half_life_expected, rel=0.1)
    effects = [point.effect for point in result.decay]
    assert effects[0] == 1
    assert effects == sorted(effects, reverse=True)
    assert result.reset_is_neutral


def test_turns_are_paired_with_the_first(remembering):
    subject = remembering(scale=0.3)
    result = measure_adaptivity(
        subject, builtin_task("country-capital"), sessions=5, turns=3, probes=2, tau=8.0
    )
    assert [row.turn for row in result.turns] == [0, 1, 2, 3]
    first, last = result.turns[0], result.turns[-1]
    assert first.logprob == first.without  # nothing has been experienced yet
    assert last.gain == pytest.approx(last.logprob - first.logprob)
    assert last.gain != 0
    assert result.gain_per_interaction == pytest.approx(last.gain / 3)
    assert result.gain_per_interaction_per_parameter == pytest.approx(
        last.gain / 3 / sum(p.numel() for p in subject.model.parameters() if p.requires_grad)
    )


def test_untrained_feedback_remembers_nothing_that_shows(remembering):
    result = measure_adaptivity(
        remembering(scale=0.0), builtin_task("country-capital"), sessions=3, turns=2, probes=1
    )
    assert result.decay == ()
    assert result.half_life is None
    assert all(row.gain == 0 for row in result.turns)
    assert result.reset_is_neutral


def test_what_cannot_be_run_is_refused(remembering, adapted, lora):
    few = LabelledTask("few", (("a", "b"), ("c", "d")))
    with pytest.raises(InvalidInputError, match="2 pairs"):
        measure_adaptivity(remembering(scale=0.1), few)
    with pytest.raises(InvalidInputError, match="no feedback nodes"):
        measure_adaptivity(open_subject(adapted(lora())), builtin_task("country-capital"))
