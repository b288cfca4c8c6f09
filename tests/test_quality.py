"""What is said of the quality of data, with counts and examples."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import quality, runner, spec
from harness.quality import Finding, Limits
from harness.records import Document, Example, Preference

ROOT = Path(__file__).resolve().parent.parent


def rows(*pairs: tuple[str, str]) -> list[Example]:
    return [Example(id=f"r{i}", input=text, targets=(target,), group="g") for i, (text, target) in enumerate(pairs)]


def found(kind: str, train: list[Example], **more: object) -> Finding:
    (finding,) = [each for each in quality.check({"train": train}, **more) if each.kind == kind]
    return finding


def kinds(train: list[Example], **more: object) -> set[str]:
    return {each.kind for each in quality.check({"train": train}, **more)}


def test_rows_without_a_fault_have_no_finding() -> None:
    assert quality.check({"train": rows(("Où est-ce?", "là-bas"), ("Was kostet das?", "5 €")), "dev": []}) == []


def test_duplicates_are_counted_as_the_fold_sees_them() -> None:
    finding = found("duplicate", rows(("Where is it?", "here"), ("where IS it", "Here!"), ("Else?", "no")))
    assert (finding.count, finding.of, finding.share) == (1, 3, pytest.approx(1 / 3))
    assert str(finding) == "train: 1 row repeats another one's input and targets"
    assert finding.examples == (("r1", "as r0: where IS it"),)
    assert finding.record()["examples"] == [{"id": "r1", "text": "as r0: where IS it"}]


def test_an_input_with_two_answers_is_a_conflict_unless_one_is_accepted_by_both() -> None:
    finding = found("conflict", rows(("Where is it?", "here"), ("where is it", "there"), ("Else?", "no")))
    assert finding.severity == "warning"
    assert finding.examples == (("r1", "'there', but 'here' in r0"),)
    both = [Example(id="a", input="q", targets=("x", "y")), Example(id="b", input="Q", targets=("y", "z"))]
    assert "conflict" not in kinds(both)


def test_empty_inputs_and_answers_are_counted() -> None:
    assert found("empty_input", rows(("...", "x"), ("?", "y"), ("a", "z"))).count == 2
    finding = found("empty_target", rows(("a", ""), ("b", "z")))
    assert (finding.count, finding.severity) == (1, "note")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("replacement", "caf\ufffd au lait"),
        ("mojibake", "café au lait".encode().decode("latin-1")),
        ("mojibake", "it’s “so”".encode().decode("cp1252", "replace").replace("\ufffd", "")),
        ("mojibake", "naïve 漢字".encode().decode("latin-1")),
        ("control", "a\x00b"),
        ("control", "reversed \u202e text"),
        ("control", "zero\u200bwidth"),
    ],
)
def test_encoding_faults_are_told_apart(kind: str, text: str) -> None:
    finding = found(kind, rows((text, "x"), ("fine", "y")))
    assert finding.count == 1
    assert kinds(rows((text, "x"))) == {kind}


@pytest.mark.parametrize(
    "text", ["Ärger über Öl", "À bientôt, Ñandú", "tabs\tand\nlines\r\n", "Â la carte: Ã", "漢字 👩‍🚀 ½ “so” … –"]
)
def test_rightly_written_texts_have_no_encoding_fault(text: str) -> None:
    assert kinds(rows((text, "x"))) == set()


def test_texts_far_longer_than_the_others_are_named_longest_first() -> None:
    train = rows(
        *((f"a question of {i}", "yes" * (i + 1)) for i in range(30)), ("long " * 100, "x"), ("long " * 90, "y")
    )
    (finding,) = [each for each in quality.check({"train": train}) if each.kind == "length" and "inputs" in each.text]
    assert finding.examples == (("r30", "500 characters"), ("r31", "450 characters"))
    assert finding.severity == "note"


def test_answers_that_the_limits_cut_off_are_counted_with_the_estimate_stated() -> None:
    train = rows(("q", "word " * 50), ("q2", "short"), ("word " * 200, "x"))
    finding = found("cut_answer", train, limits=Limits(max_tokens=24))
    assert finding.count == 1
    assert "max_tokens = 24" in finding.text
    assert "4.2 characters a token" in finding.text
    assert finding.examples[0][1].startswith("about 60 tokens")
    assert finding.severity == "note"
    (heldout,) = quality.check({"heldout": train[:2]}, limits=Limits(max_tokens=24))
    assert heldout.severity == "warning", "the variant cannot give the right answer"
    assert found("cut_row", train, limits=Limits(max_length=100)).examples[0][0] == "r2"
    assert quality.tokens("修理には三日") == 6


def test_classes_are_told_where_targets_repeat_and_those_that_are_absent() -> None:
    train = rows(*((f"q{i}", "yes" if i % 4 else "no") for i in range(40)))
    heldout = rows(*((f"h{i}", "maybe" if i < 2 else "yes") for i in range(10)))
    balance, other, absent, surplus = sorted(
        quality.check({"train": train, "heldout": heldout}), key=lambda f: (f.kind != "classes", f.severity == "note")
    )
    assert "2 classes; the most frequent, 'yes', is 30 of 40 (75%)" in balance.text
    assert other.examples == (("yes", "8"), ("maybe", "2"))
    assert (absent.text, absent.severity) == (
        "2 of 10 rows are of classes that train has no row of (1 classes)",
        "warning",
    )
    assert surplus.examples == (("no", "10"),)
    assert "classes" not in kinds(rows(*((f"q{i}", f"a{i}") for i in range(40))))


def test_personal_data_are_counted_by_kind_and_never_shown_whole() -> None:
    card, mail = "4111 1111 1111 1111", "jo.doe@mail.company.com"
    train = rows((f"My card {card} and {mail}?", "yes"), (f"My card {card} and {mail}?", f"no, {mail}"), ("Fine", "x"))
    findings = quality.check({"train": train})
    assert {(each.kind, each.count) for each in findings} >= {("personal", 2), ("conflict", 1)}
    assert "card" in " ".join(each.text for each in findings)
    shown = str([each.record() for each in findings])
    assert card not in shown
    assert "jo.doe" not in shown
    assert "company" not in shown
    assert "41***11" in shown


def test_addresses_on_pages_are_a_note_and_keys_a_warning() -> None:
    page = Document(id="d", text="Write to help@shop.company.com. Key: AKIAIOSFODNN7EXAMPLE")
    found = {each.text.rpartition(": ")[2]: each.severity for each in quality.check({}, [page])}
    assert found == {"e-mail": "note", "key": "warning"}


def test_a_pair_that_prefers_an_answer_to_itself_is_found() -> None:
    finding = quality.same_preference([("p1", "Yes.", "yes"), ("p2", "yes", "no")])
    assert finding is not None
    assert (finding.count, finding.examples) == (1, (("p1", "Yes."),))
    assert quality.same_preference([("p2", "yes", "no")]) is None


def preferences(*judged: tuple[str, str | None, str | None]) -> list[Preference]:
    return [
        Preference(id=f"p{i}", input=text, chosen=chosen, rejected=rejected)
        for i, (text, chosen, rejected) in enumerate(judged)
    ]


def of_preferences(*judged: tuple[str, str | None, str | None], **more: object) -> dict[str, Finding]:
    return {each.kind: each for each in quality.check({}, preferences={"preferences": preferences(*judged)}, **more)}


def test_preferences_without_a_fault_have_no_finding() -> None:
    assert (
        of_preferences(("How long?", "2 years", "well..."), ("How long?", "2 years", "no"), ("Why?", None, "no")) == {}
    )


def test_repeated_preferences_and_those_of_an_answer_to_itself_are_counted() -> None:
    found = of_preferences(("How long?", "2 years", "no"), ("how LONG", "2 years.", "No"), ("Why?", "so", "So!"))
    assert set(found) == {"duplicate", "same_preference"}
    assert found["duplicate"].examples == (("p1", "as p0: how LONG"),)
    assert str(found["same_preference"]) == "preferences: 1 of 3 pairs whose chosen answer is the rejected one"


def test_preferences_that_contradict_each_other_are_counted() -> None:
    found = of_preferences(
        ("How long?", "2 years", "no"),
        ("how long", "No", "2 years"),
        ("How long?", "3 years", "no"),
        ("Who?", "we", None),
        ("Who?", None, "We"),
        ("Who else?", None, "we"),
    )
    assert set(found) == {"contradiction"}
    finding = found["contradiction"]
    assert (finding.count, finding.of, finding.severity) == (2, 6, "warning")
    assert finding.examples == (("p1", "the opposite of p0: how long"), ("p4", "the opposite of p3: Who?"))


@pytest.mark.parametrize(
    ("longer", "shorter", "word"), [(15, 5, "longer"), (5, 15, "shorter"), (14, 6, None), (19, 0, None)]
)
def test_answers_that_are_better_for_their_length_are_told_beyond_chance(
    longer: int, shorter: int, word: str | None
) -> None:
    found = of_preferences(
        *((f"q{i}", "a longer answer", "short") for i in range(longer)),
        *((f"r{i}", "short", "a longer answer") for i in range(shorter)),
        ("same", "one", "two"),
    )
    assert set(found) == ({"length_bias"} if word else set())
    if word:
        assert f"the better answer is the {word} one in 15 of 21 pairs (71%)" in found["length_bias"].text
        assert found["length_bias"].severity == "note"


def test_personal_data_misread_letters_and_long_answers_are_found_in_preferences() -> None:
    mail = "jo.doe@mail.company.com"
    found = of_preferences(("Who?", f"Write to {mail}", "no"), ("cafÃ©?", "yes", None), limits=Limits(max_length=4))
    assert set(found) == {"personal", "mojibake", "cut_row"}
    assert "jo.doe" not in str([each.record() for each in found.values()])
    assert found["cut_row"].examples == (("p0", "about 9 tokens: Who?"),)


def test_warnings_stand_among_the_notes_of_a_run() -> None:
    loaded = spec.load(ROOT / "specs" / "quickstart.toml", ["decode.max_tokens=1"])
    dataset = runner.load(loaded)
    warnings = [str(each) for each in quality.of(dataset, loaded) if each.severity == "warning"]
    assert warnings
    assert set(warnings) <= set(dataset.notes)
    assert len(warnings) <= 3, "notes stay short"
