"""Spans: the parts of a prompt, joined, are the tokenization of its text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ed_interp.errors import InvalidInputError
from ed_interp.prompts.population import draw
from ed_interp.prompts.tasks import TextTask, as_task, builtin_task
from ed_interp.prompts.tokens import ShotTokens, draw_windows, tokenize

ids = st.lists(st.integers(0, 99), min_size=1, max_size=5).map(tuple)


@pytest.fixture(scope="module")
def tokenizer():
    """Byte-level BPE over a few lines, with a begin token, made in memory."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<bos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["France -> Paris\nJapan -> Tokyo\n"] * 5, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<bos>")


@settings(max_examples=60, deadline=None)
@given(st.lists(ids, min_size=1, max_size=4), ids, st.lists(ids, max_size=1))
def test_spans_cut_the_sequence_into_its_parts(demos, query, prefix):
    start = prefix[0] if prefix else ()
    queries = tuple((count, query) for count in range(len(demos) + 1))
    prompt = ShotTokens(start, tuple(demos), queries, (1,))
    for shots in range(len(demos) + 1):
        sequence = prompt.sequence(shots)
        for number in range(shots):
            low, high = prompt.span(number)
            assert sequence[low:high] == demos[number]
        low = prompt.ends[shots]
        high = low + len(prompt.query(shots))
        assert sequence[low:high] == query
        assert high == len(sequence)
        assert [token for _, token in prompt.slots(shots)] == list(sequence[len(start) :])
        slots = [slot for slot, _ in prompt.slots(shots)]
        assert len(set(slots)) == len(slots)


@pytest.mark.parametrize("name", ["country-capital", "sentiment", "next-letter"])
def test_whole_tokenization_is_that_of_the_text(name, tokenizer):
    population = draw(builtin_task(name), prompts=30, shots=[0, 1, 3])
    found = tokenize(population, tokenizer)
    assert found.tokenization == "whole"
    for prompt, tokens in zip(population.prompts, found.prompts, strict=True):
        for shots in found.shots:
            text = "".join(prompt.demonstrations[:shots]) + prompt.query
            assert list(tokens.sequence(shots)) == tokenizer(text)["input_ids"]
            full = tokenizer(text + prompt.answer)["input_ids"]
            assert list(tokens.sequence(shots) + tokens.answer) == full


def test_lists_read_behind_the_comma(tokenizer):
    population = draw(builtin_task("country"), prompts=10, shots=[1, 4])
    found = tokenize(population, tokenizer)
    comma = tokenizer(",", add_special_tokens=False)["input_ids"][0]
    for prompt in found.prompts:
        assert prompt.prefix == (0,)
        assert all(prompt.sequence(shots)[-1] == comma for shots in found.shots)


def test_templates_that_merge_across_parts_are_cut_part_by_part(tokenizer):
    task = as_task([("France", "Paris"), ("Japan", "Tokyo")], template="{input}{output}")
    population = draw(task, prompts=4, shots=[0, 1])
    # "FranceParis": nothing separates demonstrations, so a longer text may move an earlier cut.
    found = tokenize(population, tokenizer)
    for prompt, tokens in zip(population.prompts, found.prompts, strict=True):
        text = tokenizer.decode(list(tokens.sequence(1) + tokens.answer), skip_special_tokens=True)
        assert text == prompt.demonstrations[0] + prompt.query + prompt.answer
    if found.tokenization == "parts":
        query = tokens.queries[0][1]
        assert all(ids == query for _, ids in tokens.queries)


def test_parts_are_nested_even_when_cuts_move():
    class Greedy:
        """Takes two letters at a time from the left, so that odd lengths move every later cut."""

        def __call__(self, text, add_special_tokens=True):
            if isinstance(text, list):
                return {"input_ids": [self(item)["input_ids"] for item in text]}
            pairs = [text[n : n + 2] for n in range(0, len(text), 2)]
            return {"input_ids": [hash(pair) % 997 for pair in pairs]}

    task = as_task([("abc", "x"), ("de", "y"), ("fgh", "z")], template="{input}:{output}")
    found = tokenize(draw(task, prompts=6, shots=[0, 1, 2]), Greedy())
    assert found.tokenization == "parts"
    for prompt in found.prompts:
        assert prompt.sequence(2)[: prompt.ends[1]] == prompt.sequence(1)[: prompt.ends[1]]


def test_windows_are_cut_from_the_texts(tokenizer):
    task = TextTask("text", ("France -> Paris and then Japan", "short", "Tokyo, Japan, Paris"), 5)
    found = draw_windows(task, tokenizer, prompts=8, shots=None, seed=0)
    assert found.shots == (1, 2, 3, 4, 5)
    texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in task.texts]
    for prompt in found.prompts:
        window = [token for demo in prompt.demonstrations for token in demo]
        assert len(window) == 5
        assert any(
            window == text[n : n + 5] for text in texts for n in range(max(0, len(text) - 4))
        )


def test_what_has_no_tokens_is_named(tokenizer):
    class Deaf:
        def __call__(self, text, add_special_tokens=True):
            if isinstance(text, list):
                return {"input_ids": [self(item)["input_ids"] for item in text]}
            return {"input_ids": [] if "Paris" in text else tokenizer(text)["input_ids"][1:]}

    task = as_task([("a", "Paris"), ("b", "c")])
    with pytest.raises(InvalidInputError, match="has no tokens"):
        tokenize(draw(task, prompts=4, shots=[0]), Deaf())
    with pytest.raises(InvalidInputError, match="no tokenizer"):
        tokenize(draw(task, prompts=4, shots=[0]), None)


def test_windows_that_do_not_fit_are_refused(tokenizer):
    with pytest.raises(InvalidInputError, match="shorter window"):
        draw_windows(TextTask("t", ("a",), 50), tokenizer, prompts=5, shots=None, seed=0)
    with pytest.raises(InvalidInputError, match="shots must be 1 to 3"):
        draw_windows(TextTask("t", ("abc " * 9,), 3), tokenizer, prompts=5, shots=[4], seed=0)
