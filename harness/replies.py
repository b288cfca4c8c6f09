"""Asking a model what it makes of answers: each batch of replies is kept as it comes, and nothing is asked twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.plugins import Session
from harness.records import Call, Prediction, Reply, Request


def ask(
    session: Session,
    requests: Mapping[str, Request],
    found: dict[str, Prediction],
    save: Callable[[Sequence[Prediction]], None],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Ask those of `requests`, by their ids, that are not `found` yet, and put the replies there; each batch is handed
    to `save` first. `progress` is told how many of how many are found.

    All requests are planned together, so that the batches do not depend on what was found before a kill.
    """
    ids = list(requests)
    plan = session.plan(list(requests.values()))
    for batch in plan.batches:
        missing = [ids[place] for place in batch if ids[place] not in found]
        if missing:
            said = session.answer([requests[id] for id in missing], plan)
            made = [_kept(id, requests[id], reply) for id, reply in zip(missing, said, strict=True)]
            save(made)
            found.update((one.id, one) for one in made)
        progress(len(found), len(requests))


def good(kept: Iterable[Prediction]) -> dict[str, Prediction]:
    """The replies that did not fail, by their ids."""
    return {one.id: one for one in kept if one.error is None}


def _kept(id: str, request: Request, reply: Reply) -> Prediction:
    """What was said as it is kept, with all that was asked."""
    text = reply.texts[0] if reply.texts else None
    return Prediction(id=id, text=text, calls=(Call(messages=request.messages, reply=reply),), error=reply.error)
