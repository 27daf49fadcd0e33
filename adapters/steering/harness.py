"""A steered model for lm-evaluation-harness.

    import lm_eval
    lm_eval.simple_evaluate(model=harness_model(steered, batch_size=8), tasks=["..."])

The harness scores continuations in batches padded on the right without a mask, and does not pass
on where a context ends. Both matter to an intervention that acts at the end of the prompt or on
generated tokens only. So continuations are scored here with a mask, and the continuation counts as
generated: the score is that of the same tokens coming out of ``generate``. Requests for text run
through the steered model's ``generate``. Cost: that of the harness's own Hugging Face model, except
that logits are not reused between answers of one token.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from ed_interp.adapters.steering.steered import SteeredModel
from ed_interp.errors import InvalidInputError
from ed_interp.models.runners import TransformersRunner

Request = tuple[Any, list[int], list[int]]


def harness_model(steered: SteeredModel, *, batch_size: Any = 1, **options: Any) -> Any:
    """The steered model as an ``HFLM`` of lm-evaluation-harness.

    Args:
        steered: From :func:`~ed_interp.adapters.steering.steered.steer`; a ``transformers`` or PEFT
            model with a tokenizer. Its coefficients must be one for all rows.
        batch_size: Sequences per batch; a number.
        **options: Further keywords of ``HFLM``, such as ``max_length`` or ``add_bos_token``.

    Raises:
        InvalidInputError: lm-eval is not installed, a TransformerLens model, or no tokenizer.
    """
    try:
        HFLM: Any = importlib.import_module("lm_eval.models.huggingface").HFLM
    except ImportError as error:
        install = "pip install 'ed-interp[lm-eval]'"
        raise InvalidInputError(f"evaluation needs lm-evaluation-harness: {install}") from error
    if not isinstance(steered.hooked.runner, TransformersRunner):
        kind = type(steered.model).__name__
        raise InvalidInputError(f"the harness needs a transformers model, got a {kind}")
    if steered.tokenizer is None:
        raise InvalidInputError(f"{steered.hooked.name} has no tokenizer; load(model, tokenizer=)")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidInputError(f"batch_size must be a number of 1 or more, got {batch_size!r}")

    class SteeredHFLM(HFLM):  # type: ignore[misc]
        def _loglikelihood_tokens(
            self, requests: list[Request], disable_tqdm: bool = False, override_bs: Any = None
        ) -> list[tuple[float, bool]]:
            lengths = [len(context) + len(answer) for _, context, answer in requests]
            # Longest first: batches of similar length, and too large a batch fails at once.
            order = sorted(range(len(requests)), key=lambda index: -lengths[index])
            answers: dict[int, tuple[float, bool]] = {}
            for start in range(0, len(order), batch_size):
                part = order[start : start + batch_size]
                scores = _score(steered, [requests[index] for index in part], self.max_length)
                for index, score in zip(part, scores, strict=True):
                    answers[index] = score
                    if requests[index][0] is not None:
                        self.cache_hook.add_partial("loglikelihood", requests[index][0], score)
            return [answers[index] for index in range(len(requests))]

        # Text, and whatever else the harness runs, comes from the steered model too.
        def _model_generate(self, *args: Any, **kwargs: Any) -> Any:
            with steered.applied():
                return super()._model_generate(*args, **kwargs)

        def _model_call(self, *args: Any, **kwargs: Any) -> Any:
            with steered.applied():
                return super()._model_call(*args, **kwargs)

    return SteeredHFLM(
        pretrained=steered.model, tokenizer=steered.tokenizer, batch_size=batch_size, **options
    )


@torch.no_grad()
def _score(
    steered: SteeredModel, batch: list[Request], max_length: int
) -> list[tuple[float, bool]]:
    """Log-probability (nats) of each continuation, and whether it is the greedy one."""
    # The last token is only predicted, so it is not fed; what is too long loses its beginning.
    fed = [(context + answer)[-(max_length + 1) :][:-1] for _, context, answer in batch]
    width = max(len(tokens) for tokens in fed)
    ids = torch.tensor([[*tokens, *[0] * (width - len(tokens))] for tokens in fed])
    lengths = torch.tensor([len(tokens) for tokens in fed])
    mask = (torch.arange(width) < lengths[:, None]).long()
    known = torch.tensor([len(answer) - 1 for _, _, answer in batch])
    device = steered.device
    output = steered(
        input_ids=ids.to(device), attention_mask=mask.to(device), prompt_length=lengths - known
    )
    answers = []
    for row, (_, _, answer) in enumerate(batch):
        # Logits at position t predict token t + 1: the answer's first token is predicted by the
        # last of the context.
        end = int(lengths[row])
        scores = output.logits[row, end - len(answer) : end].float().log_softmax(-1).cpu()
        tokens = torch.tensor(answer)
        chosen = scores.gather(-1, tokens[:, None]).sum()
        answers.append((float(chosen), bool((scores.argmax(-1) == tokens).all())))
    return answers
