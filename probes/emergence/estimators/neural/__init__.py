"""What the trained (neural) estimators share; each estimator has a file of its own one level up.

All pairs of representations train together: the weights of their critics are stacked along a first
axis, ``member``, and every operation is one batched matrix product for all members. A member is
one pair of one fold. No member sees another: batches, initial weights and folds come from the seed,
the fold and the step alone, so a member's result is that of training it by itself.

- ``reference``: each side made normal and white, and the fitted Gaussian a critic starts from
- ``scoring``: scores and lower bounds of mutual information, as objectives and as row terms
- ``critics``: the learned functions, with stacked weights
- ``sampling``: folds and minibatches of weighted rows
- ``training``: the loop: early stopping of every member, divergence, saving and resuming
- ``trained``: from representations to terms; populations that are discrete, which are exact
- ``heldout``: the estimators of held-out value
"""
