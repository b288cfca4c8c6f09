"""Scoring stored answers anew: metrics are added or changed, nothing is answered again.

    chosen = rescore.choose(None, ['{kind = "bleu"}'])
    outcome = rescore.score(store, store.snapshot("helpdesk"), chosen, watch)

Only what the snapshot and its answering steps hold is needed: no weights, no index and no data files. The metrics that
stay keep their stored scores, so that results outlive the plug-ins that made them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from harness import data, leaderboard, plan
from harness.data import Dataset
from harness.errors import Fault, HarnessError, SpecError, UsageError
from harness.layers import assemble, fault
from harness.pipeline import Pipeline, Watch
from harness.plan import Named, PlannedRun
from harness.plugins import Family, Metric
from harness.records import Cost, Example, Run
from harness.shape import Table, explain, fit
from harness.spec import Spec, Variant, make_importable, paths_as_written, replaced
from harness.store import Snapshot, Store
from harness.toml_lines import Node, Place, node_of

_BARE = re.compile(r"[\w.@:-]+")


class _Metrics(Table):
    metrics: tuple[Annotated[Metric, Family("metrics")], ...] = Field(alias="metric", min_length=1)


@dataclass(frozen=True)
class Chosen:
    """The metrics asked for: `metrics` with the entry that a snapshot keeps of each. `alone` says that they are all
    that there shall be (a spec's tables); else they are laid over the stored ones, by name."""

    metrics: tuple[tuple[Metric, Mapping[str, Any]], ...]
    alone: bool
    text: str
    experiment: str = ""


@dataclass(frozen=True)
class Outcome:
    """What `score` came to: the snapshot, and how many scores were made."""

    snapshot: Snapshot
    made: int


def choose(spec: Path | None, tables: Sequence[str]) -> Chosen:
    """Return the metrics of the `[[metric]]` tables in the file `spec` and of `tables`, each the TOML of one table
    ('{kind = "bleu"}') or a kind alone; one of `tables` replaces the one of its name in the file.

    Nothing but its metrics is read of the file, so that its data need not be there. Raises SpecError with every
    fault, UsageError where no metric is named.
    """
    if spec is None and not tables:
        raise UsageError("name what to score: a spec whose [[metric]] tables count, or --metric '{kind = \"bleu\"}'")
    found: dict[str, tuple[Metric, Mapping[str, Any]]] = {}
    text = experiment = ""
    if spec is not None:
        written, faults = assemble(spec, [])
        if written is None:
            raise SpecError(faults)
        found |= _metrics(Node({"metric": written.at(("metric",))}, written.place), faults)
        text = spec.read_text(encoding="utf-8-sig")
        experiment = written.text("name") or spec.stem
    if tables:
        faults = []
        here = Place("--metric", None, "", Path.cwd())
        nodes = [node for table in tables if (node := _table(table, faults)) is not None]
        added = _metrics(Node({"metric": Node(nodes, here)}, here), faults)
        if any(entry["primary"] for _, entry in added.values()):
            found = {name: (one, {**entry, "primary": False}) for name, (one, entry) in found.items()}
        found |= added
    asked = "".join(f"# harness score --metric '{table}'\n" for table in tables)
    return Chosen(tuple(found.values()), spec is not None, f"{text}\n{asked}" if asked else text, experiment)


def _table(text: str, faults: list[Fault]) -> Node | None:
    """One `--metric`: a table in TOML, with or without its braces, or a kind alone."""
    place = Place("--metric", None, text, Path.cwd())
    stripped = text.strip()
    if _BARE.fullmatch(stripped):
        return node_of(stripped, place)
    try:
        parsed = tomllib.loads(f"metric = {stripped}" if stripped.startswith("{") else f"metric = {{ {stripped} }}")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        faults.append(Fault(f"is not a TOML table: {error}", file=place.file, path=text))
        return None
    return node_of(parsed["metric"], place)


def _metrics(written: Node, faults: list[Fault]) -> dict[str, tuple[Metric, Mapping[str, Any]]]:
    make_importable(written)
    root = fit(written, _Metrics, faults)
    try:
        metrics = _Metrics.model_validate(root.plain()).metrics
    except ValidationError as error:
        faults += explain(error, root, _Metrics)
        metrics = ()
    seen: dict[str, bool] = {}
    for node, metric in zip(root.at(("metric",)).items, metrics, strict=False):
        if metric.name in seen:
            faults.append(fault(node, f"metric {metric.name!r} stands twice"))
        if metric.primary and any(seen.values()):
            faults.append(fault(node, "only one metric can be the primary one"))
        seen[metric.name] = metric.primary
    if faults:
        raise SpecError(list(dict.fromkeys(faults)))
    texts = dict(paths_as_written(written, root, written.place.folder.absolute()))
    return {one.name: (one, replaced({"name": one.name, **one.settings()}, texts)) for one in metrics}


# ------------------------------------------------------------------------------------------------------------- scoring


def score(store: Store, snapshot: Snapshot, chosen: Chosen, watch: Watch, *, retry: bool = False) -> Outcome:
    """Score the stored answers of `snapshot` with the metrics chosen, and keep that as a new snapshot of the same
    experiment, or the newest one where it is the same.

    Runs that are not complete stay as they are: `harness run` completes them. With `retry`, requests on which a chosen
    metric's own model failed are asked again. Raises StoreError where answers are
    damaged or the store cannot be written, and HarnessError where a metric cannot be measured on stored answers or
    fails on every example: then there is no new snapshot, and what was scored until then is found again the next time.
    """
    store.must_write()
    examples = tuple(snapshot.examples())
    entries = _entries(snapshot, chosen)
    runs = snapshot.runs()
    plugins = {metric.name: metric for metric, _ in chosen.metrics}
    _must_be_measurable(snapshot, runs, examples, entries, plugins)
    embedders = {
        name: metric.embedder_plugin.fingerprint() for name, metric in plugins.items() if metric.embedder_plugin
    }

    def named(metric: Metric, predict: str, heldout: str) -> Named:
        return plan.score(metric, predict, heldout, embedders.get(metric.name), store, retry=retry)

    made = 0
    # A draft keeps `gc` from taking the new scores for garbage until a snapshot refers to them.
    with store.draft():
        worker = _worker(snapshot, tuple(plugins.values()), examples, store, watch)
        scored: list[Run] = []
        try:
            for run in runs:
                planned = _planned(snapshot, run, entries, plugins, named, examples)
                made += _do(run, planned, worker, store)
                scored.append(_scored(run, planned, store))
        finally:
            worker.close()
        spec = {**snapshot.spec, "metrics": entries}
        text = chosen.text if chosen.alone else f"{snapshot.text.rstrip()}\n{chosen.text}"
        waiting = [replace(run, status="waiting", error=None, cost=Cost(), notes=()) for run in scored]
        with store.begin(snapshot.name, spec, text, waiting) as begun:
            begun.write_examples(examples)
            if begun.leaderboard is None:
                _keep(begun, scored, store, snapshot.leaderboard)
    return Outcome(store.snapshot(begun.ref), made)


def _keep(snapshot: Snapshot, runs: Sequence[Run], store: Store, before: Mapping[str, Any] | None) -> None:
    ended = [run for run in runs if run.status in ("complete", "failed")]
    for run in ended:
        snapshot.save_run(run)
    if len(ended) == len(runs):
        board = leaderboard.build(snapshot, store)
        steps = {name for run in runs for role, name in run.steps.items() if not role.startswith("score.")}
        if before is not None and any(store.step(name).outcome is None for name in steps):
            # What trained or indexed is not here any more: what it took is known from before.
            board["total"] = before["total"]
        snapshot.finish(board, leaderboard.markdown(board))


def _entries(snapshot: Snapshot, chosen: Chosen) -> list[dict[str, Any]]:
    """What the new snapshot's spec says of its metrics: the stored ones with the chosen ones laid over them."""
    asked = {metric.name: dict(entry) for metric, entry in chosen.metrics}
    if chosen.alone:
        return list(asked.values())
    stored = [dict(entry) for entry in snapshot.spec.get("metrics") or []]
    if any(entry["primary"] for entry in asked.values()):
        stored = [{**entry, "primary": False} for entry in stored]
    for entry in stored:
        # The metric that ranks goes on ranking when its settings are changed.
        if entry.get("primary") and entry["name"] in asked:
            asked[entry["name"]]["primary"] = True
    kept = [asked.pop(entry["name"], entry) for entry in stored]
    return [*kept, *asked.values()]


def _must_be_measurable(
    snapshot: Snapshot,
    runs: Sequence[Run],
    examples: Sequence[Example],
    entries: Sequence[Mapping[str, Any]],
    plugins: Mapping[str, Metric],
) -> None:
    """Raise HarnessError for a metric that needs what stored answers cannot give."""
    primary = next((entry for entry in entries if entry.get("primary")), entries[0])["name"]
    answered = [run for run in runs if "predict" in run.steps]
    for name, metric in plugins.items():
        if metric.needs_passages and not any(example.sources for example in examples):
            raise HarnessError(
                f"{name!r} measures what was retrieved, and the held-out examples of {snapshot.ref} name no document "
                "with the answer: name the field that does, data.source, and `harness run` the spec."
            )
        spoken = [run for run in answered if _speaks_of(metric, run, snapshot)]
        silent = dict.fromkeys(run.variant for run in answered if run not in spoken)
        needs = "what was retrieved" if metric.needs_passages else 'the probabilities of choices, decode.kind "choices"'
        if silent and not spoken:
            raise HarnessError(f"{name!r} needs {needs}, and no variant of {snapshot.ref} has that.")
        if silent and name == primary:
            raise HarnessError(
                f"{name!r} needs {needs}, so it cannot rank variants that have none ({', '.join(silent)}): "
                "put another metric first, or make it the primary one."
            )
        lacking = dict.fromkeys(run.variant for run in spoken if "gold" not in run.steps)
        if metric.needs_gold and lacking:
            raise HarnessError(
                f"{name!r} needs the likelihood of the accepted answers, which {snapshot.ref} does not hold for "
                f"{', '.join(lacking)}: they take the model. Write the metric into the spec and `harness run SPEC`: it "
                "weighs them, and answers nothing again."
            )


def _speaks_of(metric: Metric, run: Run, snapshot: Snapshot) -> bool:
    """Whether a metric has anything to say of a run, as `plan` has it."""
    if metric.needs_passages and "index" not in run.steps:
        return False
    variants = {entry.get("name"): entry for entry in snapshot.spec.get("variants") or []}
    kind = ((variants.get(run.variant) or {}).get("decode") or {}).get("kind")
    return not metric.needs_choices or kind == "choices"


def _worker(
    snapshot: Snapshot, metrics: tuple[Metric, ...], examples: tuple[Example, ...], store: Store, watch: Watch
) -> Pipeline:
    """A pipeline that knows metrics and held-out examples alone. A metric's own model or embedder is loaded when it
    is first asked for."""
    known: dict[str, Any] = {"name": snapshot.name, "metrics": metrics, "model": None}
    spec = Spec.model_construct(**known)
    dataset = Dataset((), (), examples, (), {"heldout": data.fingerprint(examples)})
    return Pipeline(spec, dataset, store, watch)


def _planned(
    snapshot: Snapshot,
    run: Run,
    entries: Sequence[Mapping[str, Any]],
    plugins: Mapping[str, Metric],
    named: Callable[[Metric, str, str], Named],
    examples: Sequence[Example],
) -> PlannedRun:
    """The steps of a run with its new scores, in the order in which they are done. Of steps that are there already
    only the name is known."""
    steps = {role: Named(name, {}) for role, name in run.steps.items() if not role.startswith("score.")}
    latency = steps.pop("latency", None)
    if "predict" in steps:
        heldout = run.provenance.get("fingerprints", {}).get("heldout") or data.fingerprint(examples)
        for entry in entries:
            name, role = entry["name"], f"score.{entry['name']}"
            metric = plugins.get(name)
            if metric is None and role in run.steps:
                steps[role] = Named(run.steps[role], {})
            elif metric is not None and _speaks_of(metric, run, snapshot):
                steps[role] = named(metric, run.steps["predict"], heldout)
    if latency is not None:
        steps["latency"] = latency
    return PlannedRun(Variant.model_construct(name=run.variant), run.seed, steps)


def _do(run: Run, planned: PlannedRun, worker: Pipeline, store: Store) -> int:
    """Make the scores that are missing of a complete run; return how many."""
    if run.status != "complete":
        return 0
    if store.step(planned.steps["predict"].name).outcome is None:
        raise HarnessError(
            f"the answers of {run.variant!r} (seed {run.seed}) are not in {store.root}: `harness run SPEC` makes them."
        )
    missing = {
        role: named
        for role, named in planned.steps.items()
        if role.startswith("score.") and named.inputs and store.step(named.name).outcome is None
    }
    sources = {role: named for role, named in planned.steps.items() if role in ("predict", "gold")}
    for role, named in missing.items():
        try:
            worker.do(replace(planned, steps={**sources, role: named}))
        except HarnessError as error:
            raise HarnessError(f"{error} (scoring {run.variant!r}; no snapshot was made)") from error
    return len(missing)


def _scored(run: Run, planned: PlannedRun, store: Store) -> Run:
    """The record of a run with its new scores, and the notes on them. What failed stays failed."""
    steps = {role: named.name for role, named in planned.steps.items()}
    if run.status == "complete":
        stale = [note for role in run.steps.keys() - steps.keys() for note in _faults(store, run.steps[role])]
        changed = [role for role in steps if role in run.steps and steps[role] != run.steps[role]]
        stale += [note for role in changed for note in _faults(store, run.steps[role])]
        kept = [note for note in run.notes if note not in stale]
        fresh = [note for role in steps if role.startswith("score.") for note in _faults(store, steps[role])]
        return replace(run, steps=steps, notes=tuple(dict.fromkeys([*kept, *fresh])))
    return replace(run, steps=steps)


def _faults(store: Store, step: str) -> Sequence[str]:
    found: Sequence[str] = (store.step(step).outcome or {}).get("faults", [])
    return found
