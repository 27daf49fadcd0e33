"""On a real trained story model, where it is at hand: known output, known shape of emergence."""

from pathlib import Path

import pytest
import torch

import ed_interp
from ed_interp.prompts.files import text_from_file

DATA = Path(__file__).parents[3] / "shared" / "data"
MODEL = DATA / "models" / "stories260K"
STORIES = DATA / "corpora" / "tinystories_1000.json"

pytestmark = pytest.mark.skipif(
    not MODEL.exists() or not STORIES.exists(), reason=f"no story model and corpus at {DATA}"
)


@pytest.fixture(scope="module")
def stories() -> ed_interp.HookedModel:
    return ed_interp.load(MODEL, device="cpu")


def test_greedy_output_is_the_reference(stories):
    start = torch.tensor([[stories.tokenizer.bos_token_id]])
    ids = stories.model.generate(start, max_new_tokens=200, do_sample=False)
    text = stories.tokenizer.decode(ids[0], skip_special_tokens=True)
    assert text == (MODEL / "greedy200.txt").read_text("utf-8")


def test_emergence_starts_at_the_token_level_and_grows_with_depth_and_position(stories):
    task = text_from_file(STORIES, window=16)
    curve = ed_interp.emergence(
        stories, task=task, prompts=800, shots=[1, 2, 4, 8, 16], noise=0.3, untrained=False
    )
    frame = curve.to_frame()
    table = frame.pivot(index="layer", columns="shots", values="emergence")
    # Block 0 reads the last token's embedding: the token level, at every position.
    assert table.loc[0].abs().max() < 0.1
    for shots in (2, 4, 8, 16):
        growth = table[shots].diff().dropna()
        assert (growth > -0.05).all(), table
        assert table[shots].iloc[-1] > 1
    deepest = table.iloc[-1]
    assert deepest[2] < deepest[4] < deepest[16] + 0.2
    assert deepest[16] - deepest[1] > 2
    # One token is its own sequence: E differs from 0 only by what the begin token does.
    assert table[1].abs().max() < 1.5


def test_packed_equals_separate_on_real_weights(stories):
    from ed_interp.prompts.population import draw
    from ed_interp.prompts.tasks import builtin_task
    from ed_interp.prompts.tokens import tokenize

    population = tokenize(
        draw(builtin_task("country-capital"), prompts=6, shots=[0, 1, 4]), stories.tokenizer
    )
    packed = ed_interp.capture(stories, population, path="packed")
    separate = ed_interp.capture(stories, population, path="separate")
    for shots in packed.shots:
        assert (packed.at(shots) - separate.at(shots)).abs().max() < 1e-4
    difference = packed.scores()["logprob"] - separate.scores()["logprob"]
    assert difference.abs().max() < 1e-3
