"""The recipe that makes the bundled models ``icl-gpt2`` and ``icl-gemma2``.

    python -m ed_interp.models.recipe icl-gpt2 --out FOLDER --seed 0

re-makes everything that ships: generated text, tokenizer, training, checkpoints, acceptance
record and model card, all from one seed.

- ``tables``: the facts, and which pairs are held out of training prompts;
- ``corpus``: the grammar of plain sentences and small stories, and the kinds of training document;
- ``train``: the tokenizers, the two architectures and the training loop;
- ``accept``: what a model must do to ship, measured on the finished weights;
- ``make``: all of it in order, and the model card, written from the measured numbers.

Cost: about ten minutes on one free CPU core and 1.5 GB of memory for each model.
"""
