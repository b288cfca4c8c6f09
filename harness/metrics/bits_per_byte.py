"""How many bits the model needs for each byte of the accepted answers."""

from __future__ import annotations

from harness.metrics._gold import OfGold


class BitsPerByte(OfGold):
    """-sum of log-probabilities / (ln 2 x bytes in UTF-8), over all examples together: unlike perplexity it does not
    depend on the vocabulary (Gao et al. 2020, arXiv 2101.00027; `bits_per_byte` of lm-evaluation-harness)."""

    reducer = "bits_per_byte"
    unit = "bits per byte"
