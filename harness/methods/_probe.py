"""A small look at what a model knew before it was trained: plain English that has nothing to do with the task.

Where a training makes the model much worse at it, the model forgets ("catastrophic forgetting", McCloskey and Cohen
1989). Two figures, both before and after: bits per byte of a few passages, and the share of everyday facts whose right
ending the model holds for likelier than three wrong ones. The texts were written for this project (CC0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

PASSAGES = (
    "The river rises in the hills and runs slowly through the valley. In spring, when the snow melts, it floods the "
    "meadows on both sides, and for a few weeks the farmers cross them by boat.",
    "Bread needs only flour, water, salt and time. The dough is mixed in the evening, left to rise overnight in a cool "
    "place, and baked the next morning in a very hot oven until the crust is dark.",
    "When she opened the letter she had to read it twice. Her brother, whom nobody had heard from in eleven years, was "
    "coming home on the Thursday train, and he asked whether the old room was still free.",
    "A triangle has three sides and three angles. If two of its sides have the same length, the angles opposite to "
    "them are equal as well, and a line from the tip to the middle of the base stands upright on it.",
    "The committee will meet again on Monday to discuss the budget. Members who cannot attend are asked to send their "
    "comments in writing before the end of the week so that they can be taken into account.",
    "Plants take in carbon dioxide from the air and water from the soil. With the energy of sunlight they turn both "
    "into sugar and give off oxygen, which animals and people need to breathe.",
    "To change a wheel, first loosen the nuts a little while the car still stands on the ground. Then lift it with the "
    "jack, take the nuts off, put the spare wheel on and tighten them crosswise.",
    "The museum is open every day except Tuesday. Children under twelve do not pay, students pay half the price, and "
    "on the first Sunday of each month everyone may come in for free.",
)

FACTS = (
    ("The capital of France is", "Paris", "Berlin", "Madrid", "Vienna"),
    ("The day after Monday is", "Tuesday", "Friday", "Sunday", "January"),
    ("Water freezes and becomes", "ice", "steam", "sand", "wood"),
    ("A baby cat is called a", "kitten", "puppy", "calf", "foal"),
    ("The opposite of hot is", "cold", "fast", "green", "loud"),
    ("Two plus two is", "four", "nine", "seven", "twelve"),
    ("Bees make", "honey", "paper", "stone", "glass"),
    ("The sun rises in the", "east", "west", "north", "cellar"),
    ("People see with their", "eyes", "knees", "teeth", "shoes"),
    ("A year has twelve", "months", "weeks", "seconds", "corners"),
    ("The colour of fresh grass is", "green", "purple", "orange", "silver"),
    ("Shakespeare wrote the play Romeo and", "Juliet", "Robert", "London", "Monday"),
    ("The largest ocean on Earth is the", "Pacific", "Danube", "Sahara", "Everest"),
    ("Dogs bark and cats", "meow", "sing", "drive", "write"),
    ("Fish live in the", "water", "clouds", "desert", "kitchen"),
    ("To open a locked door you need a", "key", "spoon", "pillow", "cloud"),
    ("The moon goes around the", "Earth", "house", "table", "river"),
    ("Doctors often work in a", "hospital", "volcano", "bottle", "forest"),
    ("In winter it is cold, and in summer it is", "warm", "square", "early", "blue"),
    ("The language spoken in Spain is", "Spanish", "Chinese", "Swedish", "Latin"),
)

AT_ONCE = 4
"""Texts whose logits are computed together: more of them would take more memory than the training itself."""


def look(model: Any, tokenizer: Any, *, autocast: bool = False) -> dict[str, float]:
    """Return "bits_per_byte" (at least 0, lower is better) of the passages and "facts", the share (0 to 1) of facts
    whose right ending has the highest log-probability a byte among the four. With `autocast` products are computed in
    bfloat16, as a training in it computes them."""
    import torch

    training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
            passages = _log_probabilities(model, tokenizer, [("", text) for text in PASSAGES])
            endings = [(fact[0], f" {ending}") for fact in FACTS for ending in fact[1:]]
            scores = _log_probabilities(model, tokenizer, endings)
    finally:
        model.train(training)
    size = sum(len(text.encode()) for text in PASSAGES)
    each = [score / len(ending.encode()) for score, (_, ending) in zip(scores, endings, strict=True)]
    right = sum(max(range(4), key=each[first : first + 4].__getitem__) == 0 for first in range(0, len(each), 4))
    return {"bits_per_byte": -sum(passages) / size / math.log(2), "facts": right / len(FACTS)}


def _log_probabilities(model: Any, tokenizer: Any, texts: Sequence[tuple[str, str]]) -> list[float]:
    """The natural log-probability of each text after its beginning, which is encoded apart; of a text without one the
    first token is not counted. Rows are padded on the right, where causal attention never looks."""
    import torch

    rows = [
        (tokenizer.encode(begin, add_special_tokens=False), tokenizer.encode(text, add_special_tokens=False))
        for begin, text in texts
    ]
    found: list[float] = []
    for first in range(0, len(rows), AT_ONCE):
        part = rows[first : first + AT_ONCE]
        ids = [begin + text for begin, text in part]
        padded = torch.zeros((len(part), max(map(len, ids))), dtype=torch.long, device=model.device)
        for place, row in enumerate(ids):
            padded[place, : len(row)] = torch.tensor(row)
        # Prompt tuning puts tokens of its own before the text: what is wanted stands at the end.
        logits = model(input_ids=padded, use_cache=False).logits[:, -padded.shape[1] :]
        log_probabilities = logits.float().log_softmax(-1)
        for place, (begin, text) in enumerate(part):
            start = max(1, len(begin))
            told = padded[place, start : len(begin) + len(text)]
            found.append(
                float(log_probabilities[place, start - 1 : start - 1 + len(told)].gather(1, told[:, None]).sum())
            )
    return found
