"""The sweep: chosen on one half, compared on the other, the same when interrupted and resumed."""

import dataclasses
import json

import pytest
import torch

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.eval.steering.plan import grid_of
from ed_interp.eval.steering.result import SweepResult, too_few
from ed_interp.eval.steering.samples import Sample
from ed_interp.eval.steering.sweep import sweep
from ed_interp.streams.direction import Direction

WORDS = ["dog", "cat", "cow", "horse", "lion", "wolf", "pear", "apple", "lemon", "bear", "mouse"]
WORDS += ["walk", "talk", "jump", "play", "help", "open"]
SAMPLES = [Sample(f"{word} ->", " Paris", " Rome") for word in WORDS]
SITES = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]


@pytest.fixture(scope="module")
def hooked(tiny_model, tiny_tokenizer):
    import ed_interp

    return ed_interp.load(tiny_model, tokenizer=tiny_tokenizer)


@pytest.fixture(scope="module")
def direction(hooked):
    """Towards the unembedding of the wanted answer, away from that of the unwanted one."""
    weight = hooked.model.get_output_embeddings().weight.detach()
    ids = [hooked.tokenizer(text)["input_ids"][0] for text in (" Paris", " Rome")]
    vector = (weight[ids[0]] - weight[ids[1]]) * 10
    return Direction.of(hooked, dict.fromkeys(SITES, vector), method="by hand")


@pytest.fixture(scope="module")
def run(hooked, direction):
    def run(**options):
        settings = {"coefficients": (-1.0, 1.0), "budget": 100.0, "resamples": 50}
        settings |= {"neutral": ["a dog and a cat"], "instruction": "France "}
        settings |= {"random_directions": 2}
        return sweep(hooked, direction, SAMPLES, **(settings | options))

    return run


@pytest.fixture(scope="module")
def result(run):
    return run()


def test_a_direction_that_works_is_chosen_and_beats_its_controls(result):
    assert [(cell.site, cell.coefficient) for cell in result.cells] == [
        (site, value) for site in SITES for value in (-1.0, 1.0)
    ]
    assert result.chosen is not None
    assert result.chosen.coefficient == 1.0
    assert result.chosen.change == max(cell.change for cell in result.cells)
    assert [row.control for row in result.comparisons] == [
        "no steering",
        "random direction",
        "prompt only",
    ]
    assert all(row.ci_low <= row.difference <= row.ci_high for row in result.comparisons)
    assert result.comparisons[0].difference > 0
    assert result.wrong_way == 0
    assert result.samples == (8, 9)
    assert "beats no steering" in result.verdict
    opposite = [cell for cell in result.cells if cell.coefficient < 0]
    assert all(cell.change < 0 and cell.wrong_way == 1 for cell in opposite)
    score = result.score
    assert all(
        row.difference == pytest.approx(score - row.score, abs=1e-6) for row in result.comparisons
    )


def test_the_same_again_and_from_disk(result, run, tmp_path):
    assert run() == result
    folder = result.save(tmp_path / "run")
    assert SweepResult.load(folder) == result
    assert (folder / "dose-response.png").stat().st_size > 10_000
    assert len(result.plot().data) > 4
    assert "<table" in result._repr_html_()
    damaged = json.loads((folder / "run.json").read_text())
    del damaged["cells"]
    (folder / "run.json").write_text(json.dumps(damaged))
    with pytest.raises(RunFolderError, match=r"is damaged \(cells"):
        SweepResult.load(folder)
    with pytest.raises(RunFolderError, match=r"got one without run\.json"):
        SweepResult.load(tmp_path)


def test_an_interrupted_sweep_goes_on(result, run, tmp_path):
    class Stop(Exception):
        pass

    def stop_at(limit):
        def report(done, total, what):
            if done == limit:
                raise Stop

        return report

    with pytest.raises(Stop):
        run(out=tmp_path / "run", progress=stop_at(3))
    cells = tmp_path / ".run.partial" / "work"
    assert {file.stem for file in cells.iterdir()} == {"unsteered", "0000", "0001"}
    # What is there is used, not measured again.
    known = json.loads((cells / "0000.json").read_text())
    (cells / "0000.json").write_text(json.dumps({**known, "perplexity": None}))
    with pytest.raises(RunFolderError, match="with other settings"):
        run(out=tmp_path / "run", seed=1)
    with pytest.raises(RunFolderError, match="with other settings"):
        run(out=tmp_path / "run", neutral=["another text of a dog"])
    resumed = run(out=tmp_path / "run")
    assert resumed.cells[0].perplexity_ratio is None
    assert resumed.cells[1:] == result.cells[1:]
    assert resumed.comparisons == result.comparisons
    assert SweepResult.load(tmp_path / "run") == resumed
    assert not (tmp_path / "run" / "work").exists()


def test_the_budget_binds(run, result):
    worst = max(cell.perplexity_ratio for cell in result.cells)
    assert worst > 1.0
    none = run(budget=1.0, coefficients=(50.0,))
    assert none.chosen is None
    assert none.comparisons == ()
    assert "nothing was chosen" in none.verdict
    assert len(none.plot().data) > 2


def test_all_sites_together_and_random_controls(direction):
    (cell,) = grid_of(direction, [2.0, 0.0], together=True)
    assert cell.label == "all sites"
    other = cell.random(3)
    assert other.direction.norm() == pytest.approx(direction.norm())
    assert max(abs(value) for value in other.direction.cosine(direction).values()) < 0.7
    assert torch.equal(other.direction[SITES[0]], cell.random(3).direction[SITES[0]])
    assert not torch.equal(other.direction[SITES[0]], cell.random(4).direction[SITES[0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coefficients": (0.0,)}, "coefficients must hold at least one other than 0"),
        ({"coefficients": (float("nan"),)}, "coefficients must be a finite number, got nan"),
        ({"coefficients": (1.0, 1.0)}, "coefficients must be different"),
        ({"instruction": " "}, "the prompt-only control needs one"),
        ({"budget": 0.5}, "budget must be 1 or greater, got 0.5"),
        ({"neutral": []}, "neutral must hold .* got 0 text"),
        ({"random_directions": 0}, "random_directions must be 1 or greater"),
        ({"coefficients": (1e39,)}, "must write at most 3.4e"),
        ({"where": "first"}, "where must be all, prompt, last or generation, got 'first'"),
    ],
)
def test_bad_input(run, options, message):
    with pytest.raises(InvalidInputError, match=message):
        run(**options)


def test_another_models_direction(hooked, direction):
    stamp = dataclasses.replace(direction.provenance.model, fingerprint="0" * 16)
    foreign = dataclasses.replace(
        direction, provenance=dataclasses.replace(direction.provenance, model=stamp)
    )
    with pytest.raises(InvalidInputError, match="other weights"):
        sweep(hooked, foreign, SAMPLES, neutral=["a b c"], instruction="x")


def test_too_few_samples_to_be_significant_are_said(hooked, direction, result, capsys):
    settings = {"coefficients": (1.0,), "budget": 100.0, "neutral": ["a dog and a cat"]}
    settings |= {"instruction": "France ", "random_directions": 1, "resamples": 50}
    few = sweep(hooked, direction, SAMPLES[:9], **settings, progress=True)
    # All sign patterns of 5 samples: 2 of 32, times three comparisons.
    assert min(row.p_holm for row in few.comparisons) >= 6 / 32
    said = few.cautions()
    assert said.startswith("With 5 held-out samples the smallest possible corrected p is 0.19")
    assert "use at least 13 samples (half are held out)" in said
    assert said in capsys.readouterr().err
    assert "cannot be shown to beat no steering" in few.headline()
    assert result.cautions() == too_few(7) == ""
    assert too_few(6) != ""
