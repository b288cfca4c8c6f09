"""The data of a comparison: examples split into train, dev and held-out, the documents, and what identifies them.

    from harness import data
    dataset = data.load(spec.data)

Files are read by `readers.py` and `documents.py`, leaks between the splits are found by `leaks.py`; here rows become
examples, one file becomes splits, and everything gets its fingerprint.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from harness import conversations, leaks, preferences
from harness.data_spec import COLUMNS, SPLITS, DataSpec, Named
from harness.documents import load as load_documents
from harness.errors import DataError, did_you_mean
from harness.fields import field_of, follow, texts
from harness.figures import counted
from harness.leaks import Leaks, Rules
from harness.readers import Row, Rows, raise_faults, read
from harness.records import Conversation, Document, Example, Preference, digest

MORE = ("preferences", "preferences_dev", "text", "conversations", "conversations_dev")
"""Parts that few data sets have."""

T = TypeVar("T")
Part = Sequence[Example] | Sequence[Document] | Sequence[Preference] | Sequence[Conversation]


@dataclass(frozen=True)
class Dataset:
    """What `load` gives. `fingerprints` has a SHA-256 over every field of every row for each part, in their order:
    which shots come first and which rows share a batch depends on it. `notes` are sentences that must be shown with the
    results. `leaks` are those that were permitted. `answered` says how many held-out examples have an accepted answer
    in the documents, and of how many. `preferences_dev` are those kept from training."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    heldout: tuple[Example, ...]
    documents: tuple[Document, ...]
    fingerprints: dict[str, str]
    notes: tuple[str, ...] = ()
    leaks: Leaks = leaks.NONE
    answered: tuple[int, int] = (0, 0)
    preferences: tuple[Preference, ...] = ()
    preferences_dev: tuple[Preference, ...] = ()
    text: tuple[Document, ...] = ()
    conversations: tuple[Conversation, ...] = ()
    conversations_dev: tuple[Conversation, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each part has."""
        extra = [name for name in MORE if getattr(self, name)]
        return {name: len(getattr(self, name)) for name in (*SPLITS, "documents", *extra)}


def load(spec: DataSpec, *, refuse: bool = True) -> Dataset:
    """Read, map, split and check the data of `spec`. The same files and settings always give the same data set.

    Raises DataError where a file cannot be used as the spec says, and LeakError where held-out examples also stand
    where the variants learn from; without `refuse` those leaks are in the data set too.
    """
    splits = _splits(spec)
    documents, about = load_documents(spec.documents) if spec.documents is not None else ((), ())
    text, about_text = load_documents(spec.text) if spec.text is not None else ((), ())
    about_learned: list[str] = []
    pairs, pairs_dev = _preferences(spec, about_learned)
    learned = {"train": splits["train"], "dev": splits["dev"]}
    if pairs or pairs_dev:
        learned["preferences"] = preferences.as_examples([*pairs, *pairs_dev])
    talks, talks_dev = _conversations(spec, about_learned)
    if talks or talks_dev:
        learned["conversations"] = conversations.as_examples([*talks, *talks_dev])
    found = leaks.find(splits["heldout"], learned, documents, _rules(spec, search=True), text=text)
    if refuse:
        found.refuse()
    notes = [*found.notes, *_shared_with_dev(splits), *about_learned, *about, *about_text]
    for name in SPLITS:
        limit = getattr(spec, f"{name}_limit")
        if limit is not None and limit < len(splits[name]):
            notes.append(f"{name}: {limit} of {len(splits[name])} rows, drawn with seed {spec.seed}")
            splits[name] = _sample(splits[name], limit, spec.seed)
    answered = leaks.answered(splits["heldout"], documents) if documents else (0, 0)
    if text:
        learned_answers = leaks.answered(splits["heldout"], text)
        notes += _answers(*learned_answers, "text", "variants that pretrain on it learn them")
    if documents:
        # Without `text` it is the documents that a `pretrain` stage learns.
        also = "" if text else "; a variant that pretrains on the documents would learn them"
        notes += _answers(*answered, "documents", f"wanted for retrieval{also}")
        splits = _with_known_sources(splits, {document.id for document in documents}, spec, notes)
    train, dev, heldout = (tuple(splits[name]) for name in SPLITS)
    parts: dict[str, Part] = {"train": train, "dev": dev, "heldout": heldout, "documents": documents}
    more: dict[str, Any] = dict(zip(MORE, (pairs, pairs_dev, text, talks, talks_dev), strict=True))
    fingerprints = {name: fingerprint(part) for name, part in parts.items()}
    fingerprints |= {name: fingerprint(part) for name, part in more.items() if part}
    return Dataset(train, dev, heldout, documents, fingerprints, tuple(notes), found, answered, **more)


def _preferences(spec: DataSpec, notes: list[str]) -> tuple[tuple[Preference, ...], tuple[Preference, ...]]:
    """The preferences to train on and those kept from training."""

    def read_in(source: str, role: str) -> tuple[Preference, ...]:
        found, about = preferences.load(source, spec.input, role, _group_names(spec))
        notes.extend(about)
        return found

    return _with_dev(spec, "preferences", read_in, preferences.question, notes)


def _conversations(spec: DataSpec, notes: list[str]) -> tuple[tuple[Conversation, ...], tuple[Conversation, ...]]:
    """The conversations to train on and those kept from training."""

    def read_in(source: str, role: str) -> tuple[Conversation, ...]:
        return conversations.load(source, role, _group_names(spec))

    return _with_dev(spec, "conversations", read_in, conversations.question, notes)


def _with_dev(
    spec: DataSpec,
    part: str,
    read_in: Callable[[str, str], tuple[T, ...]],
    question: Callable[[T], Example],
    notes: list[str],
) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """The rows of `part` to train on, and those to measure by: a file of their own, or a share."""
    source, dev = getattr(spec, part), getattr(spec, f"{part}_dev")
    if source is None:
        return (), ()
    train = read_in(source, part)
    if isinstance(dev, str):
        back = read_in(dev, f"{part}_dev")
    else:
        kept = _kept_back(list(map(question, train)), dev or 0.0, spec.seed)
        back = tuple(train[i] for i in sorted(kept))
        train = tuple(one for i, one in enumerate(train) if i not in kept)
    notes += _about(part, list(map(question, train)), list(map(question, back)), _group_names(spec))
    return train, back


def _group_names(spec: DataSpec) -> tuple[str, ...] | None:
    """The fields that hold groups in `[data]` and its tasks: preferences and conversations may have any of them."""
    named = [column for column in (spec.group, *(task.group for task in spec.tasks)) if column is not None]
    fields = [field for column in named for field in ((column,) if isinstance(column, str) else column)]
    return tuple(dict.fromkeys(fields)) or None


def _about(part: str, train: list[Example], dev: list[Example], group: Named | None) -> list[str]:
    """What a reader should know of preferences or conversations: what those kept back share with the others, and
    whether their groups can be compared with held-out's."""
    notes = []
    inputs, groups = leaks.shared(train, dev)
    if inputs or groups:
        notes.append(
            f"{inputs} inputs and {groups} groups of {part}_dev also stand in {part}: what is measured on them may be "
            "memory, and training may stop too late"
        )
    if group is not None and all(example.group == example.id for example in (*train, *dev)):
        notes.append(
            f"{part}: no row has a field {_either(group)} (data.group), so groups that are shared with held-out "
            "cannot be seen there"
        )
    return notes


def _rules(spec: DataSpec, *, search: bool = False) -> Rules:
    """The rules that `spec` sets; with `search` the embedder is loaded where it names one."""
    rules = Rules(
        similarity=spec.leaks.similarity,
        allow=frozenset(spec.leaks.allow),
        same_facts=spec.same_facts,
        meaning=spec.leaks.meaning,
    )
    if not search or spec.leaks.embedder is None:
        return rules
    embedding = spec.leaks.embedder.open()
    return replace(rules, embed=lambda texts: embedding.embed(texts, role="query"))


def _shared_with_dev(splits: dict[str, list[Example]]) -> list[str]:
    """Dev decides when training stops, but nothing is scored on it: what it shares with train is only noted."""
    inputs, groups = leaks.shared(splits["train"], splits["dev"])
    if not inputs and not groups:
        return []
    return [f"{inputs} inputs and {groups} groups of dev also stand in train: training may stop too late"]


def _answers(present: int, of: int, part: str, meaning: str) -> list[str]:
    """Held-out answers in what is read: a figure, not a leak, since answers may be common words."""
    if not of:
        return []
    return [f"{present:,} of {of:,} held-out answers stand word for word in the {part} ({meaning})"]


def fingerprint(rows: Iterable[Example | Document | Preference | Conversation]) -> str:
    """Return the SHA-256 (64 hex digits) over every field of `rows`, in their order."""
    state = hashlib.sha256()
    for row in rows:
        values = [getattr(row, name) for name in row.__slots__]
        state.update(json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode() + b"\n")
    return state.hexdigest()


# ---------------------------------------------------------------------------------------------------------- splits


def _splits(spec: DataSpec) -> dict[str, list[Example]]:
    """The examples of each split, those of the tasks behind `[data]`'s own."""
    parts = [_own_splits(spec)] if spec.alone else []
    parts += [_of_task(_own_splits(spec.of_task(task)), task.name) for task in spec.tasks]
    splits = {name: [example for part in parts for example in part[name]] for name in SPLITS}
    if not splits["heldout"]:
        raise DataError('there is no held-out split: name a file, heldout = "heldout.jsonl", or a share of `rows`')
    return splits


def _of_task(splits: dict[str, list[Example]], task: str) -> dict[str, list[Example]]:
    """The examples of a task, with its name as their first tag, and before their ids. A group that the data name keeps
    its name: the customer 7 of one task is that of another, and held out from all of them."""

    def named(example: Example) -> Example:
        tags = tuple(dict.fromkeys((task, *example.tags)))
        name = f"{task}/{example.id}"
        group = name if example.group == example.id else example.group
        return replace(example, id=name, group=group, tags=tags)

    return {name: list(map(named, part)) for name, part in splits.items()}


def _own_splits(spec: DataSpec) -> dict[str, list[Example]]:
    files = _files(spec)
    splits: dict[str, list[Example]] = {name: files.get(name, []) for name in SPLITS}
    shares = {name: share for name in SPLITS if isinstance(share := getattr(spec, name), float)}
    if spec.rows is not None:
        pool = files["rows"]
        parts = split(pool, shares, spec.seed, _rules(spec))
        rest = parts.pop("")
        for name, part in parts.items():
            if not part:
                groups = len({example.group for example in pool})
                counts = f"{len(pool)} row{'s' * (len(pool) != 1)} in {groups} group{'s' * (groups != 1)}"
                raise DataError(
                    f"{name} = {shares[name]:g} of {spec.rows} ({counts}) comes to no whole group: "
                    "ask for a larger share, or name a `group` of more values"
                )
        splits |= parts
        if spec.train is None:
            splits["train"] = rest
    elif shares:
        raise DataError(f'{", ".join(shares)}: a share needs the file that is split: rows = "all.jsonl"')
    return splits


def _files(spec: DataSpec) -> dict[str, list[Example]]:
    """The examples of every file that `spec` names. Raises one DataError with the faults of all of them."""
    mapping = _Mapping(spec)
    found: dict[str, list[Example]] = {}
    faults: list[DataError] = []
    for name in (*SPLITS, "rows"):
        source = getattr(spec, name)
        if isinstance(source, str):
            try:
                found[name] = mapping.examples(read(source, name))
            except DataError as error:
                faults.append(error)
    if faults:
        raise DataError("\n".join(dict.fromkeys(map(str, faults)))) from faults[0]
    return found


def split(
    examples: Sequence[Example],
    shares: dict[str, float],
    seed: int,
    rules: Rules = leaks.STRICT,
) -> dict[str, list[Example]]:
    """Cut `examples` into parts of about the given shares, and a rest under the name "".

    Rows of which one would be a leak of the other stay together (`leaks.alike`), so that no cut makes one. Groups are
    taken in an order that the seed and their own names decide: adding or moving rows elsewhere in the file changes
    little. A group is left to a later part where it would bring the share further from what was asked.
    """
    # Bundles are rows that must not be cut apart.
    bundles = _drawn(examples, leaks.alike(examples, rules), seed)
    part_of = [""] * len(examples)
    for name, share in shares.items():
        taken, bundles = _taken(bundles, share * len(examples))
        for i in itertools.chain(*taken):
            part_of[i] = name
    parts: dict[str, list[Example]] = {name: [] for name in (*shares, "")}
    for example, name in zip(examples, part_of, strict=True):
        parts[name].append(example)
    return parts


def _kept_back(rows: Sequence[Example], share: float, seed: int) -> frozenset[int]:
    """Draw which rows to keep from training, about a `share` of them, never all. What asks the same stays together, and
    so do the groups that the data name, unless each is so large that none comes near the share. Without such groups it
    is the share of the questions that counts: at least one is kept, where there are two."""
    if any(row.group != row.id for row in rows):
        taken, left = _taken(_drawn(rows, leaks.same(rows, groups=True), seed), share * len(rows))
        if taken and left:
            return frozenset(itertools.chain(*taken))
    bundles = _drawn(rows, leaks.same(rows, groups=False), seed)
    names = {min(rows[i].id for i in bundle): bundle for bundle in bundles}
    return frozenset(i for name in preferences.divide(names, share, seed) for i in names[name])


def _drawn(rows: Sequence[Example], together: Iterable[tuple[int, int]], seed: int) -> list[list[int]]:
    """The rows as bundles of those that the pairs of places in `together` connect, in an order that the seed and the
    ids decide."""
    return sorted(_connected(len(rows), together), key=lambda bundle: _draw(seed, min(rows[i].id for i in bundle)))


def _connected(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The numbers below `count` in sets of those that `pairs` connect (union-find)."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs:
        parent[root(i)] = root(j)
    bundles: dict[int, list[int]] = {}
    for i in range(count):
        bundles.setdefault(root(i), []).append(i)
    return list(bundles.values())


def _taken(bundles: Iterable[list[int]], wanted: float) -> tuple[list[list[int]], list[list[int]]]:
    """Take bundles in their order, about `wanted` rows in all, and leave each that would bring the count further from
    it. Returns those taken and those left."""
    count = 0
    taken: list[list[int]] = []
    left: list[list[int]] = []
    for bundle in bundles:
        nearer = abs(count + len(bundle) - wanted) < abs(count - wanted)
        (taken if nearer else left).append(bundle)
        count += len(bundle) if nearer else 0
    return taken, left


def _sample(examples: Sequence[Example], n: int, seed: int) -> list[Example]:
    """Draw `n` rows, in the order of the file. Rows and not whole groups: a few rows of many groups say more than all
    rows of a few."""
    drawn = sorted(range(len(examples)), key=lambda i: _draw(seed, examples[i].id))[:n]
    return [examples[i] for i in sorted(drawn)]


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


# ------------------------------------------------------------------------------------------------- rows to examples


_FILL_IN = (
    'Fill the field in, or take the row out. Where the right answer is to say nothing, the target is an array: [""]. '
    "Without any answers, write target = false."
)


class _Mapping:
    """Turns the rows of every split into examples and sees to it that an id means one example in all of them."""

    def __init__(self, spec: DataSpec) -> None:
        self._spec = spec
        self._known: dict[str, tuple[Example, str]] = {}

    def examples(self, table: Rows) -> list[Example]:
        spec = self._spec
        named = {name: getattr(spec, name) for name in COLUMNS}
        fields = {name: field_of(table, field) for name, field in named.items()}
        values = {name: [follow(row, path) for row in table.rows] for name, path in fields.items() if path is not None}
        _refuse_absent(table, named, values)
        faults: list[str] = []
        examples: list[Example] = []
        taken: set[str] = set()
        for index in range(len(table.rows)):
            try:
                example = _example({name: column[index] for name, column in values.items()}, fields)
                example = self._identified(example, table.place(index), taken)
            except ValueError as fault:
                faults.append(f"{table.place(index)}: {fault}")
                continue
            taken.add(example.id)
            examples.append(example)
        raise_faults(faults, _FILL_IN if any("missing or empty" in fault for fault in faults) else "")
        return examples

    def _identified(self, example: Example, place: str, taken: set[str]) -> Example:
        """Give the example its id: the data's own, or one made from its content; a repeated row gets "id-2"."""
        if example.id:
            known, first = self._known.setdefault(example.id, (example, place))
            if known != example:
                hint = "Leave `id` out of the spec to have ids made from the content."
                raise ValueError(f"id {example.id!r} stands twice with different content, first at {first}. {hint}")
        name = example.id or digest([example.input, example.targets, example.group], 12)
        unique, number = name, 1
        while unique in taken:
            number += 1
            unique = f"{name}-{number}"
        return replace(example, id=unique, group=example.group or unique)


def _either(named: Named | None) -> str:
    return " or ".join(map(repr, (named,) if isinstance(named, str) else named or ()))


def _first(named: Named | None) -> str:
    return named if isinstance(named, str) else (named or ("",))[0]


def _refuse_absent(table: Rows, fields: dict[str, Named | None], values: dict[str, list[Any]]) -> None:
    absent = [name for name, column in values.items() if all(value is None for value in column)]
    there = table.fields() if absent else []
    raise_faults(
        [
            f"{table.source}: no row has a field {_either(fields[name])} (data.{name})."
            f"{did_you_mean(_first(fields[name]), [*there, *_nested(table.rows[0])])}{_uncut(there)}"
            for name in absent
        ]
    )


def _uncut(header: list[str]) -> str:
    """What to do where a CSV file was cut at commas and has another separator."""
    sign = next((sign for sign in ";\t|" if len(header) == 1 and sign in header[0]), None)
    return f" Its header looks cut by {sign!r}: save it with commas, or with tabs as .tsv." if sign else ""


def _nested(row: Row) -> list[str]:
    """Dotted paths one level down, to offer where a name is not found."""
    return [f"{name}.{key}" for name, value in row.items() if isinstance(value, dict) for key in value]


def _example(row: dict[str, Any], fields: dict[str, str | None]) -> Example:
    """Raises ValueError, with the reason, where the row is no example."""
    inputs = texts(row["input"], str(fields["input"]))
    if len(inputs) > 1:
        raise ValueError(f"{fields['input']!r} holds {len(inputs)} texts; an example has one input")
    if not inputs or not inputs[0].strip():
        raise ValueError(f"there is no input: {fields['input']!r} is missing or empty")
    targets: tuple[str, ...] = ()
    if fields["target"] is not None:
        # An empty text in a list is an answer: the right one is to say nothing, as in SQuAD v2.0.
        listed = isinstance(row["target"], list | tuple)
        targets = tuple(text for text in texts(row["target"], fields["target"]) if listed or text.strip())
        if not targets:
            raise ValueError(f"there is no target: {fields['target']!r} is missing or empty")
    several = {
        name: tuple(text for text in texts(row.get(name), str(fields[name])) if text)
        for name in ("group", "tags", "id", "source")
    }
    for name in ("group", "id"):
        if len(several[name]) > 1:
            raise ValueError(f"{fields[name]!r} holds {len(several[name])} values; an example has one {name}")
    return Example(
        id="".join(several["id"]),
        input=inputs[0],
        targets=targets,
        group="".join(several["group"]),
        tags=several["tags"],
        sources=several["source"],
    )


# --------------------------------------------------------------------------------------------------------- sources


def _with_known_sources(
    splits: dict[str, list[Example]], known: set[str], spec: DataSpec, notes: list[str]
) -> dict[str, list[Example]]:
    """Drop the sources that name no document, with a note: no retriever can find them, so recall must not ask for them.

    Raises DataError where no example's source names a document.
    """
    unknown = Counter(
        source for rows in splits.values() for row in rows for source in row.sources if source not in known
    )
    if not unknown:
        return splits
    if not any(source in known for rows in splits.values() for row in rows for source in row.sources):
        first = next(iter(unknown))
        raise DataError(
            f"no {_either(spec.source)} (data.source) names a document of {spec.documents}. Documents have ids such as "
            f"{', '.join(map(repr, sorted(known)[:3]))}; the first source is {first!r}."
        )
    shown = ", ".join(sorted(unknown)[:3]) + (", ..." if len(unknown) > 3 else "")
    those = f"{counted(unknown.total(), 'source')} {'names' if unknown.total() == 1 else 'name'} no document"
    notes.append(f"{those} ({shown}): measures of retrieval leave them out")

    def kept(row: Example) -> Example:
        return replace(row, sources=tuple(source for source in row.sources if source in known))

    return {name: [kept(row) if row.sources else row for row in rows] for name, rows in splits.items()}
