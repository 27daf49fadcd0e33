"""Which tokens are selected, by every condition and combination."""

import pytest
import torch

from ed_interp.errors import InvalidInputError
from ed_interp.streams.injection import Add, Transform, Where, inject

SITE = "blocks.1.hook_resid_post"
ROWS, WIDTH = 2, 7


@pytest.fixture(scope="module")
def selected(build_model):
    """What a selector selects in one plain pass, as lists of columns per row."""
    model = build_model("gpt2").eval()
    ids = torch.randint(3, 101, (ROWS, WIDTH), generator=torch.Generator().manual_seed(3))
    ids[0, 2] = ids[1, 4] = 99
    ids[ids == 98] = 50
    ids[1, 6] = 98

    def look(where, *, mask=None, strict=False, prompt_length=None):
        seen = []

        def keep(states, chosen):
            seen.append(chosen)
            return states

        what = Transform(SITE, keep, where=where)
        options = {"strict": strict, "prompt_length": prompt_length}
        with inject(model, what, **options), torch.no_grad():
            model(ids, attention_mask=mask)
        if not seen:
            return [[], []]
        return [row.nonzero().flatten().tolist() for row in seen[0]]

    return look


ALL = list(range(WIDTH))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(), [ALL, ALL]),
        (Where(positions=0), [[0], [0]]),
        (Where(positions=-1), [[6], [6]]),
        (Where(positions=[1, -2]), [[1, 5], [1, 5]]),
        (Where(positions=torch.tensor([4, 2])), [[2, 4], [2, 4]]),
        (Where(positions=slice(2, 5)), [[2, 3, 4], [2, 3, 4]]),
        (Where(positions=slice(-3, None)), [[4, 5, 6], [4, 5, 6]]),
        (Where(positions=slice(None, -5)), [[0, 1], [0, 1]]),
        (Where(positions=slice(1, None, 3)), [[1, 4], [1, 4]]),
        (Where(positions=slice(4, 100)), [[4, 5, 6], [4, 5, 6]]),
        (Where(positions=[0, slice(5, None)]), [[0, 5, 6], [0, 5, 6]]),
        (Where(phase="prompt"), [ALL, ALL]),
        (Where(phase="generation"), [[], []]),
        (Where(tokens=99), [[2], [4]]),
        (Where(tokens=[99, 98]), [[2], [4, 6]]),
        (Where(window=(-2, None)), [[5, 6], [5, 6]]),
        (Where(window=(None, -5)), [[0, 1], [0, 1]]),
        (Where(mask=torch.tensor([[True, False], [False, True]])), [[0], [1]]),
        (Where(mask=torch.tensor([False, True, True])), [[1, 2], [1, 2]]),
        (Where(tokens=99, positions=slice(3, None)), [[], [4]]),
        (Where(tokens=99) & Where(positions=2), [[2], []]),
        (Where(tokens=99) | Where(positions=0), [[0, 2], [0, 4]]),
        (~Where(positions=slice(1, None)), [[0], [0]]),
        (~(Where(positions=slice(0, 3)) | Where(tokens=98)), [[3, 4, 5, 6], [3, 4, 5]]),
    ],
)
def test_selections(where, expected, selected):
    assert selected(where) == expected


def test_padding_is_neither_counted_nor_selected(selected):
    mask = torch.ones(ROWS, WIDTH, dtype=torch.long)
    mask[0, :3] = 0  # left
    mask[1, 5:] = 0  # right
    assert selected(Where(), mask=mask) == [[3, 4, 5, 6], [0, 1, 2, 3, 4]]
    assert selected(Where(positions=[0, -1]), mask=mask) == [[3, 6], [0, 4]]
    assert selected(~Where(positions=1), mask=mask) == [[3, 5, 6], [0, 2, 3, 4]]
    assert selected(Where(window=(-2, None)), mask=mask) == [[5, 6], [3, 4]]
    holes = torch.tensor([[1, 0, 1, 1, 0, 1, 1]] * 2)
    assert selected(Where(positions=[1, 3]), mask=holes) == [[2, 5], [2, 5]]


def test_the_end_of_the_prompt_can_be_said(selected):
    lengths = torch.tensor([3, 6])
    assert selected(Where(phase="generation"), prompt_length=lengths) == [[3, 4, 5, 6], [6]]
    assert selected(Where(phase="prompt"), prompt_length=2) == [[0, 1], [0, 1]]
    assert selected(Where(positions=-1), prompt_length=lengths) == [[2], [5]]
    assert selected(Where(window=(-1, 2)), prompt_length=lengths) == [[2, 3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": []}, "positions must hold at least one"),
        ({"positions": [1, True]}, "must be integers, got True"),
        ({"positions": True}, "must be integers, got True"),
        ({"positions": slice(5, 2)}, "must end after they begin"),
        ({"positions": slice(0, 5, 0)}, "step of positions must be 1 or greater"),
        ({"phase": "answer"}, "phase must be 'prompt', 'generation'"),
        ({"tokens": []}, "tokens must hold at least one"),
        ({"window": (3, 3)}, "must end after it begins"),
        ({"mask": torch.zeros(3, dtype=torch.bool)}, "at least one position"),
    ],
)
def test_conditions_that_cannot_be_met_are_refused_at_once(options, message):
    with pytest.raises(InvalidInputError, match=message) as caught:
        Where(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (Where(positions=7), "must be at most 6, .* got 7"),
        (Where(positions=-8), "at least -7 in row 0, .* 7 tokens, got -8"),
        (Where(tokens=97) & Where(tokens=96), "touched no token"),
        (Where(phase="generation"), "touched no token"),
        (
            Where(mask=torch.ones(3, 4, dtype=torch.bool)),
            r"the mask must have one row per prompt \(2\), .* got 3",
        ),
    ],
)
def test_what_matches_nothing_is_an_error(where, message, selected):
    with pytest.raises(InvalidInputError, match=message):
        selected(where, strict=True)


def test_ids_are_needed_to_select_by_them(build_model):
    model = build_model("gpt2").eval()
    embedded = model.get_input_embeddings()(torch.tensor([[5, 6, 7]]))
    with (
        pytest.raises(InvalidInputError, match="must be given token ids"),
        inject(model, Add(torch.ones(32), SITE, where=Where(tokens=5))),
    ):
        model(inputs_embeds=embedded)
    with inject(model, Add(torch.ones(32), SITE, where=Where(positions=2))):
        model(inputs_embeds=embedded)
