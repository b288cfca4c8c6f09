"""Personal data and secrets in texts: what looks like one and passes its own check digits.

Patterns and arithmetic only: names, addresses and what is said in words are not found. A text without a finding is not
thereby free of personal data. `presidio` hands texts to Microsoft Presidio, which finds more (and errs more), where it
is installed. What was found is shown masked, never whole.
"""

from __future__ import annotations

import importlib
import importlib.util
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import DataError

KINDS = ("e-mail", "phone", "IBAN", "card", "IP address", "key")


@dataclass(frozen=True, slots=True)
class Found:
    """One finding: `text[start:end]` looks like `kind`. `masked` is what may be shown of it."""

    kind: str
    start: int
    end: int
    masked: str


_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,8}[a-z]{2,24}(?![\w-])", re.I
)
# RFC 2606 and RFC 6761: names that belong to nobody, for documentation and tests.
_NOBODY = re.compile(r"[@.](?:example(?:\.(?:com|net|org))?|test|invalid|localhost)$", re.I)
_IBAN = re.compile(r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Z0-9])")
_DIGITS = re.compile(r"(?<![\w.,+-])\d(?:[ -]?\d){12,18}(?![\w-])")
_PHONE = re.compile(
    r"(?<![\w+.,/-])(?<!\d )(?:\+\d{1,3}[ .-]?(?:\(\d{1,5}\)[ .-]?)?\d{1,5}(?:[ .-]?\d{2,5}){1,5}"
    r"|\(0?\d{2,5}\)[ -]?\d{2,4}(?:[ -]?\d{2,5}){1,4}"
    r"|0\d{1,4}[ /-]\d{2,4}(?:[ -]?\d{2,5}){1,4}|\d{3}[-.]\d{3}[-.]\d{4})(?![\w-])"
)
_IP4 = re.compile(r"(?<![\w.])(?<!version )(?<!Version )(?<!release )(?<!Release )(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)")
_IP6 = re.compile(r"(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])", re.I)
_KEY = re.compile(
    r"(?<![\w-])(?:AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|gh[pousr]_\w{36,}|github_pat_\w{50,}|glpat-[\w-]{20,}|"
    r"sk-(?:ant-|proj-|or-)?[\w-]{20,}|[rs]k_(?:live|test)_\w{16,}|xox[abeoprs]-[\w-]{10,}|AIza[\w-]{35}|hf_\w{30,}|"
    r"npm_\w{36}|pypi-[\w-]{50,}|SG\.[\w-]{16,}\.[\w-]{16,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
    r"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
)

# Lengths of an IBAN by country, from the IBAN registry (ISO 13616); other countries' are checked by their digits alone.
_LENGTHS = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 FO18 FR27 GB22
GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LI21 LT20 LU20 LV21 MC27 MD24 ME22 MK19
MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SE24 SI19 SK24 SM27 TN24 TR26 UA29 VA22 XK20"""
_IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _LENGTHS.split()}


def find(text: str) -> list[Found]:
    """Return what `text` holds, in its order, no two overlapping (a card is not also a phone number)."""
    found: list[Found] = []
    for kind, start, end in _matches(text):
        if all(end <= other.start or start >= other.end for other in found):
            found.append(Found(kind, start, end, mask(kind, text[start:end])))
    return sorted(found, key=lambda each: each.start)


def _matches(text: str) -> Iterator[tuple[str, int, int]]:
    """Surest kinds first."""
    for match in _KEY.finditer(text):
        yield "key", *match.span()
    if "@" in text:
        for match in _EMAIL.finditer(text):
            if not _NOBODY.search(match[0]):
                yield "e-mail", *match.span()
    if sum(map(str.isdigit, text)) < 4:
        return
    for match in _IBAN.finditer(text):
        if size := _iban_in(match[0]):
            yield "IBAN", match.start(), match.start() + size
    for match in _DIGITS.finditer(text):
        if is_card(match[0]):
            yield "card", *match.span()
    for match in _IP4.finditer(text):
        if is_address(match[0]):
            yield "IP address", *match.span()
    if text.count(":") > 1:
        for match in _IP6.finditer(text):
            if match[0].count(":") > 2 and is_address(match[0]):
                yield "IP address", *match.span()
    for match in _PHONE.finditer(text):
        if 8 <= sum(map(str.isdigit, match[0])) <= 15:
            yield "phone", *match.span()


def _iban_in(text: str) -> int:
    """How many characters of `text` make an IBAN: the words after one look like more of it. 0 for none."""
    length = _IBAN_LENGTHS.get(text[:2])
    kept = 0
    for end, character in enumerate(text, 1):
        kept += character != " "
        if character != " " and (kept >= 15 if length is None else kept == length) and is_iban(text[:end]):
            return end
    return 0


def is_iban(text: str) -> bool:
    """Whether an IBAN's check digits are right: rearranged and read as a number, it is 1 modulo 97 (ISO 7064)."""
    plain = text.replace(" ", "").upper()
    right = _IBAN_LENGTHS.get(plain[:2], len(plain))
    if len(plain) != right or not re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}", plain):
        return False
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1


# First digits of the lengths in which cards are issued (ISO/IEC 7812: 3 travel, 4 and 5 banking, 6 and 2 others).
_CARDS = {13: "4", 14: "3", 15: "3", 16: "23456", 17: "6", 18: "6", 19: "46"}


def is_card(text: str) -> bool:
    """Whether a number is a payment card's: a length and first digit in which cards are issued, and a right check digit
    (Luhn, ISO/IEC 7812)."""
    digits = [int(character) for character in text if character.isdigit()]
    issued = str(digits[0]) in _CARDS.get(len(digits), "") if digits else False
    return issued and len(set(digits)) > 1 and luhn(digits)


def luhn(digits: Sequence[int]) -> bool:
    """Whether the last of `digits` is the check digit of the others: every second from the right doubled, the digits
    of all summed, a multiple of ten (ISO/IEC 7812-1, annex B)."""
    doubled = [digit if i % 2 == 0 else digit * 2 - 9 * (digit > 4) for i, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def is_address(text: str) -> bool:
    """Whether `text` is an IP address of a machine: not unspecified, loopback, or set aside for documentation."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_loopback or any(address in network for network in _EXAMPLES))


# RFC 5737 and RFC 3849: addresses for documentation.
_EXAMPLES = [
    ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]


def mask(kind: str, text: str) -> str:
    """Return what may be shown of a finding: its shape, at most its first and last two characters."""
    if kind == "e-mail":
        name, _, domain = text.partition("@")
        return f"{name[0]}***@***.{domain.rpartition('.')[2]}"
    if kind == "key":
        return f"{text[:4]}***" if not text.startswith("-----") else "-----BEGIN *** PRIVATE KEY-----"
    if kind == "IP address":
        return re.sub(r"[0-9a-fA-F]+", "*", text)
    return f"{text[:2]}***{text[-2:]}"


def masked(text: str, findings: Sequence[Found]) -> str:
    """Return `text` with every finding masked."""
    parts, at = [], 0
    for found in findings:
        parts += [text[at : found.start], found.masked]
        at = found.end
    return "".join([*parts, text[at:]])


def presidio(language: str = "en") -> Callable[[str], list[Found]]:
    """Return a finder like `find` that asks Presidio, whose findings it shows as their kind alone.

    Raises DataError where the package or the language model it needs is missing, with how to get them: nothing is
    downloaded here.
    """
    if importlib.util.find_spec("presidio_analyzer") is None:
        raise DataError(
            "Presidio is not installed: run `pip install presidio-analyzer`, then ask again: it needs a model too"
        )
    model = {"en": "en_core_web_lg"}.get(language, f"{language}_core_news_lg")
    if importlib.util.find_spec(model) is None:
        raise DataError(
            f"Presidio needs a language model that finds names: run `python -m spacy download {model}` (about 400 MB) "
            "where the network can be reached, or install the wheel of it that spaCy publishes"
        )
    analyzer = importlib.import_module("presidio_analyzer")
    engines = importlib.import_module("presidio_analyzer.nlp_engine")
    settings = {"nlp_engine_name": "spacy", "models": [{"lang_code": language, "model_name": model}]}
    provider = engines.NlpEngineProvider(nlp_configuration=settings)
    engine: Any = analyzer.AnalyzerEngine(nlp_engine=provider.create_engine(), supported_languages=[language])

    def found(text: str) -> list[Found]:
        results = sorted(engine.analyze(text=text, language=language), key=lambda each: (each.start, -each.score))
        kept: list[Found] = []
        for each in results:
            if not kept or each.start >= kept[-1].end:
                kind = each.entity_type.lower().replace("_", " ")
                kept.append(Found(kind, each.start, each.end, f"<{kind}>"))
        return kept

    return found
