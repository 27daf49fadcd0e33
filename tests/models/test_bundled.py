"""The bundled models do what they are bundled for, measured on the shipped weights."""

import itertools
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import ed_interp.models.recipe.accept as accept_module
from ed_interp.errors import RunFolderError, UnknownNameError
from ed_interp.models.recipe.__main__ import main
from ed_interp.models.recipe.accept import accept, shot_accuracy
from ed_interp.models.recipe.corpus import ARROW, Corpus, join, sentences
from ed_interp.models.recipe.make import make
from ed_interp.models.recipe.tables import chance, held_out, lists, relations, trained
from ed_interp.models.recipe.train import NAMES, Encoder, checkpoint_steps, train_tokenizer

BUNDLED = Path(accept_module.__file__).resolve().parents[1] / "bundled"
MEGABYTE = 1_000_000


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=NAMES)
def shipped(request):
    folder = BUNDLED / request.param
    kwargs = {"attn_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **kwargs).eval()
    record = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    return folder, model, AutoTokenizer.from_pretrained(folder), record


def test_shipped_weights_pass_every_criterion(shipped):
    _, model, tokenizer, record = shipped
    measured = accept(model, tokenizer, seed=record["seed"], shots=[0, 1, 4, 8, 12, 16], prompts=12)
    assert measured.failures() == []
    assert record["acceptance"]["failures"] == []
    # The record was measured on more prompts; it must describe these very weights.
    assert measured.induction_score == pytest.approx(
        record["acceptance"]["induction_score"], abs=1e-3
    )
    assert measured.text_cross_entropy_nats == pytest.approx(
        record["acceptance"]["text_cross_entropy_nats"], abs=1e-3
    )


def test_a_model_that_learnt_nothing_is_refused(shipped):
    folder, model, tokenizer, record = shipped
    fresh = type(model)(model.config).eval()
    fresh.load_state_dict(load_file(folder / "checkpoints/step-000000.safetensors"), strict=False)
    refused = accept(fresh, tokenizer, seed=record["seed"], shots=[0, 8], prompts=2).failures()
    assert any("induction" in reason for reason in refused)
    assert any("ceiling" in reason for reason in refused)
    assert any("entropy" in reason for reason in refused)


def test_sizes():
    for name in NAMES:
        top = [f for f in (BUNDLED / name).iterdir() if f.is_file()]
        assert sum(f.stat().st_size for f in top) < 8 * MEGABYTE
        assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
            f.name for f in top
        }
    assert sum(f.stat().st_size for f in BUNDLED.rglob("*") if f.is_file()) < 50 * MEGABYTE


def test_checkpoints_are_loadable_half_precision_and_lead_to_the_final_weights(shipped):
    folder, model, _, record = shipped
    files = sorted((folder / "checkpoints").iterdir())
    assert [int(f.stem.removeprefix("step-")) for f in files] == record["checkpoint_steps"]
    assert record["checkpoint_steps"][0] == 0
    final = model.state_dict()
    distances = []
    for file in files:
        weights = load_file(file)
        assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
        missing = type(model)(model.config).load_state_dict(weights, strict=False)
        assert missing.unexpected_keys == []
        # Tied to the embedding, hence stored once.
        assert set(missing.missing_keys) <= {"lm_head.weight"}
        distances.append(sum(float((final[k] - w).square().sum()) for k, w in weights.items()))
    assert min(distances) == distances[-1]
    assert model.dtype == torch.float32


def test_a_half_precision_checkpoint_answers_as_training_measured_it(shipped):
    folder, model, tokenizer, record = shipped
    step = record["checkpoint_steps"][-1]
    point = next((p for p in record["curve"] if p["step"] == step), None)
    assert point is not None
    twin = type(model)(model.config).eval()
    twin.load_state_dict(
        load_file(folder / f"checkpoints/step-{step:06d}.safetensors"), strict=False
    )
    found = accept_module.mean_curve(
        shot_accuracy(twin, tokenizer, seed=record["seed"], shots=[8], prompts=8)
    )
    assert found[8] == pytest.approx(point["held_out_accuracy"]["8"], abs=0.03)


def test_recorded_held_out_pairs_are_those_of_the_seed(shipped):
    record = shipped[3]
    again = {k: [list(pair) for pair in v] for k, v in held_out(record["seed"]).items()}
    assert record["held_out"] == again


@pytest.mark.parametrize("seed", [0, 1])
def test_no_training_prompt_holds_a_held_out_pair(seed):
    corpus = Corpus(seed=seed)
    out = held_out(seed)
    seen = set()
    for k in range(600):
        text = join(corpus.icl(pairs=2 + k % 20))
        lines = [line for line in text.splitlines() if ARROW in line]
        pairs = {tuple(line.split(f"{ARROW} ")) for line in lines}
        # The relation is not written in the prompt: it is any that holds all its pairs.
        fitting = [n for n, e in relations().items() if pairs <= set(e.pairs)]
        assert fitting
        assert any(not pairs & set(out[name]) for name in fitting)
        seen |= set(fitting)
    assert seen == set(relations())


def test_held_out_and_trained_pairs_partition_each_relation():
    out, known = held_out(0), trained(0)
    for name, entry in relations().items():
        assert sorted(out[name] + known[name]) == sorted(entry.pairs)
        assert 0.1 <= len(out[name]) / len(entry.pairs) <= 0.2


def test_held_out_sentences_are_never_trained_but_their_facts_are():
    kept, unseen = sentences(0, kept=True), sentences(0, kept=False)
    for name in relations():
        assert unseen[name]
        assert not set(kept[name]) & set(unseen[name])
    for name, pairs in held_out(0).items():
        for source, target in pairs:
            assert any(source in s and target in s for s in kept[name])


def test_tables():
    table = relations()
    assert len(table) >= 20
    for entry in table.values():
        assert len({source for source, _ in entry.pairs}) == len(entry.pairs)
        assert chance(entry.pairs[0][0]) <= 0.5
    assert len(table["country-capital"].pairs) >= 40
    labels = [label for _, label in table["sentiment"].pairs]
    assert len(labels) >= 120
    assert labels.count("positive") == labels.count("negative") == len(labels) / 2
    assert {name: len(entities) for name, entities in lists().items()} == {
        "country": 25,
        "animal": 16,
        "colour": 15,
    }
    assert all(e.isalpha() and len(set(es)) == len(es) for es in lists().values() for e in es)


def test_the_corpus_is_a_function_of_the_seed():
    def draw(seed: int) -> list[str]:
        corpus = Corpus(seed=seed)
        return [
            join(d)
            for _ in range(20)
            for d in (
                corpus.icl(pairs=6),
                corpus.plain(parts=3),
                corpus.repeat(length=5, copies=3),
                corpus.listing(),
            )
        ]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_every_table_word_is_one_token_and_text_comes_back(shipped):
    tokenizer = shipped[2]

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    for entry in relations().values():
        for source, target in entry.pairs:
            assert count(f" {target}") == 1
            assert count(source) == len(source.split())
    for entities in lists().values():
        assert all(count(entity) == count(f" {entity}") == 1 for entity in entities)
    for text in ("France -> Paris\nJapan ->", "unseen wörds, 日本 & <tags>\t!", ""):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text


def test_begin_tokens_are_those_of_the_families(shipped):
    folder, model, tokenizer, _ = shipped
    ids = tokenizer("France ->")["input_ids"]
    gemma = folder.name == "icl-gemma2"
    assert (ids[0] == tokenizer.bos_token_id) == gemma
    assert len(ids) == 2 + gemma
    assert tokenizer.pad_token is not None
    assert model.config.eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("name", NAMES)
def test_segments_tokenize_as_the_whole(name):
    tokenizer = train_tokenizer(name, seed=0)
    encoder, corpus = Encoder(tokenizer), Corpus(seed=0)
    for _ in range(50):
        for document in (
            corpus.icl(pairs=5),
            corpus.plain(parts=3),
            corpus.repeat(length=6, copies=3),
            corpus.listing(),
        ):
            ids, mask = encoder.document(document)
            assert ids == tokenizer(join(document))["input_ids"]
            assert len(mask) == len(ids)
            assert any(mask)


def test_checkpoint_steps_are_log_spaced_from_zero():
    for steps in (1, 3, 50, 400, 5000):
        found = checkpoint_steps(steps)
        assert found[0] == 0
        assert found == sorted(set(found))
        assert found[-1] <= steps
    found = checkpoint_steps(5000)[1:]
    gaps = [b / a for a, b in itertools.pairwise(found)]
    assert max(gaps) / min(gaps) < 1.2


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_gives_a_loadable_folder_and_the_same_one_again(name, tmp_path, monkeypatch):
    # Measurement is what takes the time, and is tested on the shipped weights.
    import ed_interp.models.recipe.make as make_module

    monkeypatch.setattr(make_module, "is_curve_step", lambda step, steps: False)
    monkeypatch.setattr(
        make_module,
        "accept",
        lambda model, tokenizer, seed: accept(model, tokenizer, seed=seed, shots=[0, 8], prompts=1),
    )
    for folder in ("one", "two"):
        assert make(name, tmp_path / folder, seed=5, steps=3)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    assert model(torch.tensor([tokenizer.encode("France ->")])).logits.isfinite().all()
    one = sorted(f.relative_to(tmp_path / "one") for f in (tmp_path / "one").rglob("*.*"))
    two = sorted(f.relative_to(tmp_path / "two") for f in (tmp_path / "two").rglob("*.*"))
    assert one == two
    for file in one:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    # Nothing is left over beside the two folders.
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_a_failed_run_leaves_nothing(tmp_path):
    def stop(step: int, losses: dict[str, float]) -> None:
        if step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make("icl-gpt2", tmp_path / "out", steps=3, on_step=stop)
    assert os.listdir(tmp_path) == []


def test_bad_input(tmp_path, capsys):
    with pytest.raises(UnknownNameError, match="icl-gpt2"):
        make("icl-gpt3", tmp_path / "out", steps=1)
    with pytest.raises(RunFolderError, match="exists"):
        make("icl-gpt2", tmp_path, steps=1)
    assert main(["icl-gpt2", "--out", str(tmp_path / "out"), "--steps", "0"]) == 1
    assert "must be 1 or greater" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
