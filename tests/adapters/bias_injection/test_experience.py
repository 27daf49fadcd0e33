"""States that outlive a call: on request, decaying, saved, per session and per thread."""

import json
import math
import threading

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ed_interp.adapters.bias_injection.experience import Experience, experience
from ed_interp.errors import InvalidInputError, UnknownNameError
from ed_interp.records.tensors import write


@pytest.fixture
def model(adapted):
    return adapted("llama")


def ids(length=6, rows=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 101, (rows, length), generator=generator)


@torch.no_grad()
def say(model, tokens, session=None, store=None):
    """Logits of one interaction."""
    if session is None:
        return model(input_ids=tokens, use_cache=False).logits
    with experience(model, session=session, store=store):
        return model(input_ids=tokens, use_cache=False).logits


def close(one, other):
    return torch.allclose(one, other, atol=1e-5, rtol=1e-4)


def test_the_second_interaction_knows_the_first(model):
    fresh = say(model, ids())
    assert torch.equal(say(model, ids(), "alice"), fresh)
    assert not torch.allclose(say(model, ids(), "alice"), fresh, atol=1e-2)
    # Nothing is carried outside a block, or to another session.
    assert torch.equal(say(model, ids()), fresh)
    assert torch.equal(say(model, ids(), "bob"), fresh)
    assert Experience.of(model).sessions() == ["alice", "bob"]
    assert Experience.of(model).session("alice").interactions == 2


def test_what_is_carried_is_the_state_at_the_end_of_the_turn(model):
    # With decay switched off, two turns are one sequence, as far as the states go: the states
    # after the second turn are those of the whole, except that attention sees one turn only.
    store = Experience(model, tau=math.inf)
    say(model, ids(), "a", store)
    first = store.session("a").states
    layer = next(k for k in first if "layers.0.self_attn.q_proj" in k)
    say(model, ids(seed=1), "a", store)
    carried = store.session("a").states[layer]
    whole = Experience(model, tau=math.inf)
    say(model, torch.cat([ids(), ids(seed=1)], 1), "a", whole)
    # Block 0 reads the embedding, which does not depend on attention.
    assert close(carried, whole.session("a").states[layer])


@torch.no_grad()
def test_generation_is_one_interaction_with_and_without_a_cache(model):
    lengths = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    kept = {}
    for use_cache in (True, False):
        store = Experience(model)
        for turn in range(2):
            with experience(model, session="a", store=store):
                model.generate(input_ids=ids(seed=turn), use_cache=use_cache, **lengths)
        kept[use_cache] = store.session("a")
    assert kept[True].interactions == kept[False].interactions == 2
    for key, value in kept[True].states.items():
        assert close(value, kept[False].states[key]), key


@torch.no_grad()
def test_scoring_twice_in_a_block_is_the_same(model):
    say(model, ids(), "a")
    with experience(model, session="a"):
        one = model(input_ids=ids(seed=1), use_cache=False).logits
        assert torch.equal(model(input_ids=ids(seed=1), use_cache=False).logits, one)
    assert Experience.of(model).session("a").interactions == 2


def test_turns_make_states_fade(model):
    store = Experience(model, tau=3.0)
    say(model, ids(), "a", store)
    states = store.session("a").states
    store.advance(2, "a")
    with experience(model, session="a", store=store):
        pass  # nothing was said: no interaction, and nothing has faded for good
    assert store.session("a").interactions == 1
    with experience(model, session="a", store=store), torch.no_grad():
        model(input_ids=ids(1), use_cache=False)
    # Two turns passed and this is a third: the start was the old state times exp(-3 / 3).
    for key, value in store.session("a").states.items():
        layer = model.get_base_model().get_submodule(key.rpartition("/")[0])
        weights = layer.weights_of("default")
        added = value - layer.decays("default") * states[key] * math.exp(-1.0)
        assert added.shape == value.shape
        if "layers.0." in key:
            embedded = model.get_base_model().model.embed_tokens(ids(1))
            read = model.get_base_model().model.layers[0].input_layernorm(embedded)[0, 0]
            assert close(added, weights["read"] @ read)
    assert store.session("a").pending_turns == 0


def test_seconds_make_states_fade(model):
    now = [100.0]
    store = Experience(model, tau=10.0, unit="seconds", clock=lambda: now[0])
    fresh = say(model, ids(), "a", store)
    now[0] += 0.0
    soon = say(model, ids(), "a", store)
    assert not torch.allclose(soon, fresh, atol=1e-2)
    now[0] += 1000.0
    assert close(say(model, ids(), "a", store), fresh)
    with pytest.raises(InvalidInputError, match="counts seconds"):
        store.advance(1)


def test_rows_are_sessions(model):
    both = torch.cat([ids(), ids(seed=1)])
    say(model, both, ["alice", "bob"])
    again = say(model, both, ["bob", "carol"])
    other = Experience(model)
    say(model, ids(seed=1), "bob", other)
    assert close(again[:1], say(model, ids(), "bob", other))
    assert close(again[1:], say(model, ids(seed=1)))


def test_a_batch_of_another_size_is_refused_and_nothing_is_kept(model):
    say(model, ids(), "a")
    before = Experience.of(model).session("a")
    with pytest.raises(InvalidInputError, match=r"1 sessions \(a\) and the batch has 3 rows"):
        say(model, ids(rows=3), "a")
    with (
        pytest.raises(InvalidInputError, match="one beam per row"),
        torch.no_grad(),
        experience(model, session="a"),
    ):
        model.generate(input_ids=ids(), num_beams=2, max_new_tokens=2)
    assert Experience.of(model).session("a") is before


def test_an_exception_keeps_the_old_state(model):
    say(model, ids(), "a")
    before = Experience.of(model).session("a")

    def interrupted():
        with experience(model, session="a"):
            model(input_ids=ids(), use_cache=False)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert Experience.of(model).session("a") is before
    say(model, ids(), "a")  # and it is free again


def test_reset_forgets(model):
    fresh = say(model, ids(), "a")
    Experience.of(model).reset("a")
    assert torch.equal(say(model, ids(), "a"), fresh)
    Experience.of(model).reset()
    assert Experience.of(model).sessions() == []
    with pytest.raises(UnknownNameError, match="unknown session 'a'"):
        Experience.of(model).reset("a")


def test_threads_do_not_see_each_other(model):
    expected = {}
    for name, seed in (("a", 1), ("b", 2)):
        store = Experience(model)
        expected[name] = [say(model, ids(seed=seed), name, store) for _ in range(3)]
    shared, found, failures = Experience(model), {}, []
    barrier = threading.Barrier(2)

    def work(name, seed):
        try:
            found[name] = []
            for _ in range(3):
                barrier.wait(timeout=60)
                found[name].append(say(model, ids(seed=seed), name, shared))
        except Exception as error:  # reported by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in (("a", 1), ("b", 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for name in expected:
        assert all(torch.equal(x, y) for x, y in zip(found[name], expected[name], strict=True))


def test_one_session_is_in_one_interaction(model):
    with experience(model, session="a"):
        with (
            pytest.raises(InvalidInputError, match="'a' is in an interaction"),
            experience(model, session=["b", "a"]),
        ):
            pass
        with experience(model, session="b"):  # the refusal did not keep b
            pass


def test_another_model_in_the_block_is_left_alone(model, adapted):
    other = adapted("llama", seed=9)
    say(model, ids(), "a")
    with experience(model, session="a"), torch.no_grad():
        inside = other(input_ids=ids(rows=2), use_cache=False).logits
    assert torch.equal(inside, say(other, ids(rows=2)))


def test_saved_and_loaded_goes_on_as_before(model, tmp_path):
    store = Experience(model, tau=5.0)
    say(model, torch.cat([ids(), ids(seed=1)]), ["alice", "bob"], store)
    store.advance(1.5, "bob")
    path = store.save(tmp_path / "sessions.safetensors")
    loaded = Experience.load(path, model)
    assert loaded.sessions() == ["alice", "bob"]
    assert (loaded.tau, loaded.unit) == (5.0, "turns")
    for name in loaded.sessions():
        one, other = (say(model, ids(seed=3), name, s) for s in (store, loaded))
        assert torch.equal(one, other)


def test_stored_experience_is_refused_elsewhere(model, adapted, tmp_path):
    say(model, ids(), "a")
    path = Experience.of(model).save(tmp_path / "sessions.safetensors")
    with pytest.raises(InvalidInputError, match="belongs to another adapter"):
        Experience.load(path, adapted("llama", seed=9))
    with pytest.raises(InvalidInputError, match="has no feedback nodes"):
        Experience.load(path, adapted("llama", n_nodes=0))
    weights = next(p for n, p in model.named_parameters() if "_read" in n)
    weights.data[0, 0] += 1e-3
    with pytest.raises(InvalidInputError, match="belongs to another adapter"):
        Experience.load(path, model)


@pytest.fixture
def stored(model, tmp_path):
    """A saved experience of one session."""
    say(model, ids(), "a")
    return Experience.of(model).save(tmp_path / "sessions.safetensors")


def contents(path):
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata())


def test_damaged_files_are_refused(model, stored, tmp_path):
    tensors, header = contents(stored)
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-10])
    with pytest.raises(InvalidInputError, match="cut short"):
        Experience.load(stored, model)
    save_file(tensors, stored, {"format": "pt"})
    with pytest.raises(InvalidInputError, match="must have the format 'ed-interp/experience'"):
        Experience.load(stored, model)
    save_file(tensors, stored, {**header, "version": "7"})
    with pytest.raises(InvalidInputError, match="must have version '2'"):
        Experience.load(stored, model)
    with pytest.raises(InvalidInputError, match="does not exist"):
        Experience.load(tmp_path / "nothing", model)


def test_one_flipped_byte_is_refused(model, stored):
    """Wherever it is: in the states, in a session's times, in the time constant."""
    whole = stored.read_bytes()
    texts = b'interactions\\": 1', b'tau\\": \\"8'
    for place in (len(whole) - 2, *(whole.index(text) + len(text) - 1 for text in texts)):
        changed = bytearray(whole)
        changed[place] ^= 1  # 1 becomes 0, 8 becomes 9
        stored.write_bytes(changed)
        with pytest.raises(InvalidInputError, match="was altered after it was written") as caught:
            Experience.load(stored, model)
        assert str(stored) in str(caught.value)
    stored.write_bytes(whole)
    assert Experience.load(stored, model).sessions() == ["a"]


def test_values_that_cannot_be_are_refused_with_a_right_digest(model, stored):
    tensors, header = contents(stored)
    meta = json.loads(header["meta"])

    def written(states, **changes):
        write(stored, states, kind="experience", version=2, meta={**meta, **changes})

    written({name: value * float("nan") for name, value in tensors.items()})
    with pytest.raises(InvalidInputError, match="finite"):
        Experience.load(stored, model)
    for changes in (
        {"sessions": []},
        {"sessions": meta["sessions"] * 2},
        {"sessions": [{"name": "a"}]},
        {"tau": "x"},
    ):
        written(tensors, **changes)
        with pytest.raises(InvalidInputError, match="is damaged") as caught:
            Experience.load(stored, model)
        assert str(stored) in str(caught.value)
    for changes, message in (({"tau": "-1"}, "tau must"), ({"unit": "years"}, "unit must")):
        written(tensors, **changes)
        with pytest.raises(InvalidInputError, match=message):
            Experience.load(stored, model)


def test_files_of_version_1_are_refused(model, stored):
    tensors, _ = contents(stored)
    old = {"format": "1", "kind": "bias-injection experience", "tau": "8.0", "unit": "turns"}
    save_file(tensors, stored, old | {"sessions": "[]", "fingerprints": "{}"})
    with pytest.raises(InvalidInputError, match="must have a digest") as caught:
        Experience.load(stored, model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("session", ["", [], ["a", "a"], ["a", ""]])
def test_names_of_sessions(model, session):
    with (
        pytest.raises(InvalidInputError, match="session names"),
        experience(model, session=session),
    ):
        pass


def test_options(model, adapted):
    with pytest.raises(InvalidInputError, match="tau must be a positive number of turns"):
        Experience(model, tau=0.0)
    store = Experience(model)
    with pytest.raises(InvalidInputError, match="turns must be a number, 0 or greater"):
        store.advance(-1)
    with (
        pytest.raises(InvalidInputError, match="belongs to another model"),
        experience(adapted("gpt2"), session="a", store=store),
    ):
        pass
