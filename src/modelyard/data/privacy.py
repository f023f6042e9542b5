"""A first guess at which columns tell something about people, by their names and their values."""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelyard.data.contract import Privacy

_WORD = re.compile(r"[a-z]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

# Special categories of personal data: GDPR, article 9.
_SENSITIVE = frozenset(
    [
        "race",
        "racial",
        "ethnicity",
        "ethnic",
        "religion",
        "religious",
        "political",
        "politics",
        "union",
        "sexual",
        "orientation",
        "genetic",
        "biometric",
        "diagnosis",
        "disease",
        "disability",
        "hiv",
        "health",
        "medication",
        "pregnant",
        "pregnancy",
    ]
)
_PERSONAL = frozenset(
    [
        "email",
        "mail",
        "phone",
        "mobile",
        "telephone",
        "surname",
        "firstname",
        "lastname",
        "fullname",
        "username",
        "ssn",
        "passport",
        "iban",
        "ip",
        "dob",
        "birthdate",
        "birthday",
        "dateofbirth",
        "street",
        "address",
        "nationalid",
        "socialsecurity",
        "taxid",
        "creditcard",
    ]
)
_PERSONAL_PAIRS = frozenset(
    [
        "first name",
        "last name",
        "full name",
        "user name",
        "family name",
        "given name",
        "middle name",
        "customer name",
        "patient name",
        "birth date",
        "date birth",
        "date of birth",
        "national id",
        "tax id",
        "passport number",
        "ip address",
        "social security",
        "credit card",
        "card number",
        "phone number",
    ]
)
# What identifies people when combined (Sweeney 2000: postal code, birth date and sex single out most).
_QUASI = frozenset(
    [
        "zip",
        "zipcode",
        "postcode",
        "postal",
        "plz",
        "city",
        "town",
        "sex",
        "gender",
        "age",
        "birth",
        "birthyear",
        "occupation",
        "job",
        "nationality",
        "marital",
        "latitude",
        "longitude",
        "lat",
        "lon",
        "lng",
    ]
)

_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("e-mail addresses", re.compile(r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}")),
    ("IP addresses", re.compile(r"(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}")),
    ("IBANs", re.compile(r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?")),
    ("social security numbers", re.compile(r"\d{3}-\d{2}-\d{4}")),
    (
        "phone numbers",
        re.compile(r"(?:\+|00)\d[\d ()/.-]{6,18}\d|\(?0?\d{2,4}\)?[ /.-]\d{3,4}[ /.-]?\d{3,5}"),
    ),
)


def guess_privacy(name: str, sample: Sequence[str] = ()) -> tuple[Privacy, str]:
    """The privacy class of a column and the reason in words; `sample` holds some of its texts, if it is text.

    It is a guess for people to correct: a class of none is not a promise that nobody can be identified.

    >>> guess_privacy("first_name")
    ('personal', 'its name says so')
    >>> guess_privacy("contact", ["a@b.org", "c@d.net"])
    ('personal', 'its values look like e-mail addresses')
    """
    words = _WORD.findall(_CAMEL.sub(" ", name).lower())
    joined = " ".join(words)
    for known, kind in ((_SENSITIVE, "sensitive"), (_PERSONAL, "personal")):
        if known.intersection(words) or joined.replace(" ", "") in known:
            return ("sensitive" if kind == "sensitive" else "personal"), "its name says so"
    if joined == "name" or any(pair in joined for pair in _PERSONAL_PAIRS):
        return "personal", "its name says so"
    for what, pattern in _PATTERNS:
        if sample and sum(pattern.fullmatch(text.strip()) is not None for text in sample) >= 0.8 * len(
            sample
        ):
            return "personal", f"its values look like {what}"
    if _QUASI.intersection(words):
        return "quasi", "its name says so"
    return "none", ""
