"""What is measured: models with random weights, and populations of token ids, all from seeds.

Times depend on shapes, not on what the weights say, so nothing is downloaded. Token ids are made
here for the same reason (a tokenizer would be a download); their lengths and how often they repeat
are what matters, and each function says what it makes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import tokenizers
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from ed_interp.models.hooked import HookedModel
from ed_interp.prompts.population import Population, Prompt
from ed_interp.prompts.tokens import Ids, ShotTokens, TokenPopulation

VOCABULARY = 50257


def gpt2(
    *, blocks: int = 12, width: int = 768, vocabulary: int = VOCABULARY, window: int = 1024
) -> GPT2LMHeadModel:
    """A GPT-2 with random weights, by default of the size of GPT-2 small (124M parameters)."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=blocks,
        n_embd=width,
        n_head=max(1, width // 64),
        vocab_size=vocabulary,
        n_positions=window,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config).eval()


def hooked(model: GPT2LMHeadModel) -> HookedModel:
    """The model under our hooks, without a tokenizer."""
    return HookedModel.wrap(model, name="gpt2-random")


def tokenizer() -> PreTrainedTokenizerFast:
    """The least tokenizer that there is, for libraries that insist on one."""
    model = tokenizers.models.WordLevel({"<eos>": 0, "a": 1}, unk_token="<eos>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(model), eos_token="<eos>")


def prompt_of_lengths(
    demonstrations: Sequence[int], query: int, *, seed: int, shots: Sequence[int]
) -> ShotTokens:
    """One prompt of random tokens of the given lengths."""
    rng = random.Random(seed)
    query_ids = _ids(rng, query)
    return ShotTokens(
        (),
        tuple(_ids(rng, length) for length in demonstrations),
        tuple((k, query_ids) for k in shots),
    )


def relation(
    prompts: int,
    *,
    shots: Sequence[int],
    pairs: int = 200,
    seed: int = 0,
) -> TokenPopulation:
    """Prompts of a relation between words, as a tokenizer would cut them.

    A demonstration is an input of 1 or 2 tokens, a separator, an output of 1 or 2 tokens and a line
    break: 4 to 6 tokens. A query is an input and a separator: 2 or 3. There are ``pairs`` inputs
    with an output each, of tokens drawn from 50,257; demonstrations are distinct pairs other than
    the query's. So a separator's place holds one token and a word's place up to ``pairs``, as in
    real tasks of this kind (countries, opposites, ...).
    """
    rng = random.Random(seed)
    words = [(_ids(rng, rng.choice((1, 2))), _ids(rng, rng.choice((1, 2)))) for _ in range(pairs)]
    separator, end = (25,), (198,)
    items = []
    for row in range(prompts):
        query = row % pairs
        shown = rng.sample([index for index in range(pairs) if index != query], shots[-1])
        demonstrations = tuple(words[k][0] + separator + words[k][1] + end for k in shown)
        query_ids = words[query][0] + separator
        items.append(ShotTokens((), demonstrations, tuple((k, query_ids) for k in shots)))
    return _population(items, shots)


def scattered(prompts: int, *, shots: Sequence[int], seed: int = 0) -> TokenPopulation:
    """The hardest case for lone tokens: the lengths of :func:`relation`, every token its own.

    Demonstrations of 4 to 6 and queries of 2 or 3 tokens drawn uniformly from 50,257, so that
    nearly every prompt has a token of its own at every place.
    """
    rng = random.Random(seed)
    items = []
    for _ in range(prompts):
        demonstrations = tuple(_ids(rng, rng.choice((4, 5, 6))) for _ in range(shots[-1]))
        query_ids = _ids(rng, rng.choice((2, 3)))
        items.append(ShotTokens((), demonstrations, tuple((k, query_ids) for k in shots)))
    return _population(items, shots)


def _ids(rng: random.Random, length: int) -> Ids:
    return tuple(rng.randrange(VOCABULARY) for _ in range(length))


def _population(items: Sequence[ShotTokens], shots: Sequence[int]) -> TokenPopulation:
    texts = tuple(Prompt(("",) * len(item.demonstrations), "") for item in items)
    population = Population("benchmark", "labelled", texts, tuple(shots), None, None, None, {})
    return TokenPopulation(population, tuple(items), "whole")
