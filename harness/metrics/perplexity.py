"""How surprised the model is by each token of the accepted answers."""

from __future__ import annotations

from harness.metrics._gold import OfGold


class Perplexity(OfGold):
    """exp(-sum of log-probabilities / number of tokens), over the tokens of all examples together, so that a long
    answer weighs more than a short one (Jelinek et al. 1977; as the transformers documentation defines it, each token
    seen with all that precedes it). The mean of each text's perplexity, which `evaluate` gives, is another figure.

    Tokens are the model's own: models with different vocabularies are compared by `bits_per_byte` instead.
    """

    reducer = "perplexity"
    unit = "perplexity"
    floor = 1.0
