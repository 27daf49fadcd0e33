"""The tokenizers, the two architectures and the training loop.

Byte-level BPE is trained on the generated text; both models share the merges. As in the originals,
GPT-2's tokenizer adds no special token and Gemma's puts ``<bos>`` first.

A step takes one batch of plain text and lists, one of repeats (or walks) and, once the facts are
known, one of ICL prompts (all of one length, so without padding), and adds the losses. Repeats and
prompts start short and grow, walks start among few words.

Cost: about 2,500 tokens and 0.25 s a step on one free CPU core for either model.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from ed_interp.models.recipe.corpus import Corpus, Document, tokenizer_text

NAMES = ("icl-gpt2", "icl-gemma2")
VOCABULARY = 2304
CONTEXT = 256

WEIGHT_DECAY = 0.1
WARMUP = 100
CURRICULUM = 0.2
ICL_TOKENS = 768
PLAIN_TOKENS = 64
LONG_EVERY = 10
PLAIN_ROWS = 24
LEARNING_RATE = 2e-3
# The share of training before the first ICL prompt, in which the facts are learnt.
FACTS_FIRST = 0.4
# The loss on words that occur for the first time cannot fall; at full weight that noise would
# dominate the clipped gradient.
REPEAT_WEIGHT = 0.15
# Whether repeats begin as walks among few words. GPT-2 forms an induction head from repeats of
# random words alone; Gemma 2, whose post-norms make every early attention output as large as the
# embeddings, formed none in trial runs without walks. The curves in recipe.json show when.
WALKS = {"icl-gpt2": False, "icl-gemma2": True}
WALK_WORDS = 24
WALK_STAY = 0.1
WALK_DOUBLING = 0.04


def train_tokenizer(name: str, *, seed: int) -> PreTrainedTokenizerFast:
    """The tokenizer of the bundled model ``name``, trained from ``seed``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    gemma = name == "icl-gemma2"
    special = ["<pad>", "<eos>", "<bos>", "<unk>"] if gemma else ["<|endoftext|>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        tokenizer_text(seed=seed),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if gemma:
        core.post_processor = processors.TemplateProcessing(
            single="<bos> $A",
            pair="<bos> $A <bos> $B",
            special_tokens=[("<bos>", core.token_to_id("<bos>"))],
        )
    else:
        core.post_processor = processors.ByteLevel(trim_offsets=False)
    roles = ("bos", "eos", "pad", "unk")
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        **{f"{role}_token": f"<{role}>" if gemma else special[0] for role in roles},
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


class Encoder:
    """Turns documents into token ids and loss masks, with a cache of segments."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        # The begin token is what the tokenizer adds to an empty text.
        self._prefix: list[int] = tokenizer("")["input_ids"]

    def document(self, document: Document) -> tuple[list[int], list[bool]]:
        """Token ids, begin token included if the tokenizer adds one, and the loss mask."""
        ids = list(self._prefix)
        mask = [False] * len(ids)
        # The Rust core, as the wrapper warns about texts longer than the context.
        core = self._tokenizer.backend_tokenizer
        for text, trained in document:
            if text not in self._known:
                if len(self._known) > 100_000:
                    self._known.clear()
                self._known[text] = core.encode(text, add_special_tokens=False).ids
            ids += self._known[text]
            mask += [trained] * len(self._known[text])
        return ids, mask


def build_model(name: str, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> PreTrainedModel:
    """A freshly initialised model: 4 blocks of width 128, 4 heads, context of 256 tokens."""
    torch.manual_seed(seed)
    roles = ("bos_token_id", "eos_token_id", "pad_token_id")
    special: dict[str, Any] = {role: getattr(tokenizer, role) for role in roles}
    if name == "icl-gpt2":
        special |= {"n_embd": 128, "n_layer": 4, "n_head": 4, "n_inner": 512}
        special |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        gpt2 = GPT2Config(vocab_size=len(tokenizer), n_positions=CONTEXT, **special)
        return GPT2LMHeadModel(gpt2)
    special |= {"num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 256}
    special |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    # Gemma 2 caps its attention scores, which fused kernels do not.
    special["attn_implementation"] = "eager"
    gemma2 = Gemma2Config(
        vocab_size=len(tokenizer),
        query_pre_attn_scalar=32,
        sliding_window=64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        # The model multiplies embeddings by sqrt(width), which gives them unit power.
        initializer_range=128**-0.5,
        **special,
    )
    return Gemma2ForCausalLM(gemma2)


def growth(step: int, steps: int, *, start: float) -> float:
    """From 0 to 1 over the share ``CURRICULUM`` of training, beginning at the share ``start``."""
    return min(1.0, max(0.0, (step / steps - start) / CURRICULUM))


def draw_icl(corpus: Corpus, *, step: int, steps: int) -> list[Document]:
    """The ICL prompts of a step: up to 16 pairs, every tenth step as long as the context."""
    # None at first: prompts alone can be learnt by heart, pair by pair, and a model that starts
    # with them answers 15% of held-out pairs (measured). A model that knows the facts has only to
    # infer the relation, which carries over to any pair.
    if step < FACTS_FIRST * steps:
        return []
    grown = growth(step, steps, start=FACTS_FIRST)
    pairs = corpus.rng.randint(2, round(4 + 12 * grown))
    if grown == 1.0 and step % LONG_EVERY == 0:
        pairs = corpus.rng.randint(17, (CONTEXT - 8) // 4)
    return [corpus.icl(pairs=pairs) for _ in range(min(96, max(1, ICL_TOKENS // (4 * pairs))))]


def draw_plain(corpus: Corpus, *, step: int) -> list[Document]:
    """The plain text and lists of a step, every tenth step as long as the context."""
    if step % LONG_EVERY == 3:
        return [corpus.plain(parts=30) for _ in range(4)]
    return [corpus.plain(parts=8) for _ in range(PLAIN_ROWS)] + [corpus.listing()]


def draw_repeat(corpus: Corpus, *, step: int, steps: int) -> list[Document]:
    """The repeats of a step: short at first, every tenth step as long as the context."""
    grown = growth(step, steps, start=0.0)
    if grown == 1.0 and step % LONG_EVERY == 5:
        return [corpus.repeat(length=corpus.rng.randint(20, 60), copies=4) for _ in range(3)]
    longest = round(6 + 12 * grown)
    return [corpus.repeat(length=corpus.rng.randint(3, longest), copies=4) for _ in range(8)]


def draw_walks(corpus: Corpus, *, step: int, steps: int) -> list[Document]:
    """Walks among few words at first, twice as many every :data:`WALK_DOUBLING` of training.

    Empty once all words take part: then plain repeats go on.
    """
    doublings = (step / steps - WALK_STAY) / WALK_DOUBLING
    words = round(WALK_WORDS * 2 ** max(0.0, doublings))
    if words >= 2 * len(corpus.words):
        return []
    draw = corpus.rng.randint
    return [corpus.walk(vocabulary=words, distinct=draw(3, 14), length=64) for _ in range(16)]


def collate(
    encoder: Encoder, documents: list[Document], *, longest: int = CONTEXT
) -> tuple[Int[Tensor, "row pos"], Bool[Tensor, "row pos"]]:
    """Ids and loss mask, padded on the right and cut at ``longest`` tokens."""
    rows = [encoder.document(document) for document in documents]
    ids = [torch.tensor(row[:longest]) for row, _ in rows]
    mask = [torch.tensor(trained[:longest]) for _, trained in rows]
    return pad_sequence(ids, batch_first=True), pad_sequence(mask, batch_first=True)


def masked_loss(
    model: PreTrainedModel, ids: Int[Tensor, "row pos"], mask: Bool[Tensor, "row pos"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats over the tokens under ``mask``."""
    # Padding is on the right, where no token under the mask attends to it, hence the ones.
    ones = torch.ones_like(ids)
    hidden = model.base_model(input_ids=ids, attention_mask=ones, use_cache=False)[0]
    # The head runs under the mask only: most inputs of ICL prompts carry no loss.
    head: Any = model.get_output_embeddings()
    logits = head(hidden[:, :-1][mask[:, 1:]]).float()
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    return torch.nn.functional.cross_entropy(logits, ids[:, 1:][mask[:, 1:]])


def schedule(step: int, steps: int) -> float:
    """The share of the peak learning rate: linear warm-up, then a cosine down to a fiftieth."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    progress = (step - WARMUP) / max(1, steps - WARMUP)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2


def checkpoint_steps(steps: int, *, count: int = 10) -> list[int]:
    """Step 0, then at most ``count`` - 1 steps log-spaced from a tenth of training to its end."""
    last = count - 2
    return sorted({0, *(round(steps * 10 ** (k / last - 1)) for k in range(count - 1))})


def train(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    steps: int,
    on_step: Callable[[int, dict[str, float]], None],
) -> None:
    """Train the bundled model ``name`` in place.

    ``on_step`` is called with the number of steps done (0 before the first) and the losses in nats.
    """
    corpus = Corpus(seed=seed)
    encoder = Encoder(tokenizer)
    # Biases and norms are not decayed.
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98))
    model.train()
    on_step(0, {})
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * schedule(step, steps)
        losses: dict[str, float] = {}
        drawn = {
            "icl": draw_icl(corpus, step=step, steps=steps),
            "plain": draw_plain(corpus, step=step),
            "walk": draw_walks(corpus, step=step, steps=steps) if WALKS[name] else [],
        }
        if not drawn["walk"]:
            drawn["repeat"] = draw_repeat(corpus, step=step, steps=steps)
        for kind, documents in drawn.items():
            if not documents:
                continue
            # Plain text is cut, as two stories in a row would make every row longer.
            short = kind == "plain" and step % LONG_EVERY != 3
            ids, mask = collate(encoder, documents, longest=PLAIN_TOKENS if short else CONTEXT)
            loss = masked_loss(model, ids.to(model.device), mask.to(model.device))
            weight = REPEAT_WEIGHT if kind == "repeat" else 1.0
            (weight * loss).backward()  # type: ignore[no-untyped-call]
            losses[kind] = float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        on_step(step + 1, losses)
    model.eval()
