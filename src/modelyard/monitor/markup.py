"""HTML from text: everything that goes in is escaped, unless it is markup made here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Markup(str):
    """Text that is HTML already. Only this file and the plots make it."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A value as HTML text, safe in content and in quoted attributes.

    >>> text("<b onload='x'>")
    '&lt;b onload=&#x27;x&#x27;&gt;'
    """
    return value if isinstance(value, Markup) else Markup(escape(_plain(str(value)), quote=True))


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element; `class_` is written as `class`, attributes that are `None` are left out.

    >>> tag("td", "a < b", class_="number")
    '<td class="number">a &lt; b</td>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """Parts one after the other, each escaped unless it is markup."""
    return Markup("".join(text(part) for part in parts))


def pill(words: str, mood: str) -> Markup:
    """A short state in colour; the words carry the meaning without it."""
    return tag("span", words, class_=f"pill {mood}")


def outcome(passed: bool | None) -> Markup:
    """pass, fail, or a fact."""
    if passed is None:
        return pill("fact", "plain")
    return pill("pass", "good") if passed else pill("fail", "bad")


def table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[int] = ()
) -> Markup:
    """A table with a caption; the columns in `numbers` are set to the right."""
    right = set(numbers)
    head = join(
        tag("th", title, scope="col", class_="number" if place in right else None)
        for place, title in enumerate(heads)
    )
    body = join(
        tag(
            "tr",
            *(tag("td", cell, class_="number" if place in right else None) for place, cell in enumerate(row)),
        )
        for row in rows
    )
    whole = tag("table", tag("caption", caption), tag("thead", tag("tr", head)), tag("tbody", body))
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def empty(words: str) -> Markup:
    """Says that there is nothing to show, and why."""
    return tag("p", words, class_="empty")


def _plain(value: str) -> str:
    # Control characters are not allowed in HTML, whatever the escape.
    return "".join(letter if letter >= " " or letter in "\n\t" else "\ufffd" for letter in value)
