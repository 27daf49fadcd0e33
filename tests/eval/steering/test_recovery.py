"""On the bundled model: a function vector stands in for demonstrations, a random one does not."""

import pytest

from ed_interp.eval.steering.generation import side_by_side
from ed_interp.eval.steering.recovery import OWN, RANDOM, recovery


@pytest.fixture(scope="module")
def found():
    names = ["country-capital", "adjective-superlative", "present-past", "number-ordinal"]
    return recovery("icl-gpt2", seeds=[0], names=names, prompts=12, peers=False)


def test_half_of_the_gap_is_recovered(found):
    rows = {row.vector: row for row in found.rows}
    assert rows[OWN].eight_shot - rows[OWN].zero_shot > 0.5
    assert rows[OWN].recovered >= 0.5
    assert abs(rows[RANDOM].recovered) < 0.2


def test_what_is_told(found):
    assert len(found.to_frame()) == 2
    assert list(found.relation_frame().columns) == ["zero_shot", "accuracy", "eight_shot"]
    # The same heads that are found over all relations and seeds.
    assert set(found.heads[0]) & {(0, 1), (2, 1), (2, 2), (2, 3)}
    by_relation = found.relation_frame()
    own = next(row for row in found.rows if row.vector == OWN)
    assert by_relation["accuracy"].mean() == pytest.approx(own.accuracy)


def test_side_by_side_without_interventions_is_the_same_twice():
    import ed_interp
    from ed_interp.errors import InvalidInputError

    model = ed_interp.load("icl-gpt2")
    for temperature in (0.0, 1.0):
        found = side_by_side(model, "France ->", [], max_new_tokens=4, temperature=temperature)
        assert found.steered == found.unsteered
        assert len(found.steered.tokens) == len(found.steered.logprobs) <= 4
        assert all(value <= 0 for value in found.steered.logprobs)
    with pytest.raises(InvalidInputError, match="context window"):
        side_by_side(model, "France ->", [], max_new_tokens=10_000)
    with pytest.raises(InvalidInputError, match="at least one token"):
        side_by_side(model, "", [])
