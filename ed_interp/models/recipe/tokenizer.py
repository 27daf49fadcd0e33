"""The tokenizers of the bundled models: byte-level BPE trained on the generated text.

Both share the merges. As in the originals, GPT-2's adds no special token and Gemma's puts ``<bos>``
first.
"""

from transformers import PreTrainedTokenizerFast

from ed_interp.models.recipe.corpus import Document, tokenizer_text

VOCABULARY = 2304
CONTEXT = 256


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
