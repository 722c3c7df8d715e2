"""HTML from Python: whatever is not markup already is escaped; nothing that was received becomes any."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TypeAlias

Content: TypeAlias = "str | int | float | Sequence[Content] | None"

_EMPTY = frozenset({"input", "br", "hr"})


class Markup(str):
    """Text that is HTML; made by `tag` and `join` alone."""

    __slots__ = ()


def text(content: Content) -> Markup:
    """Return content as HTML: text escaped, markup as it is, lists joined, none as nothing."""
    if content is None:
        return Markup()
    if isinstance(content, Markup):
        return content
    if isinstance(content, list | tuple):
        return Markup("".join(text(part) for part in content))
    return Markup(escape(_printable(str(content))))


def tag(name: str, /, *content: Content, **attributes: str | int | float | bool | None) -> Markup:
    """Return an element.

    Args:
        name: Its name, one of ours.
        content: What is in it.
        attributes: An underscore at the end is left out (`class_`), others are hyphens. `True` stands alone,
            `False` and none are left out.
    """
    told = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _EMPTY:
        return Markup(f"<{name}{told}>")
    return Markup(f"<{name}{told}>{text(content)}</{name}>")


def link(href: str, /, *content: Content, **attributes: str | int | float | bool | None) -> Markup:
    """Return a link to a page of ours."""
    return tag("a", *content, href=href, **attributes)


def table(
    heads: Sequence[Content], rows: list[Markup], **attributes: str | int | float | bool | None
) -> Markup:
    """Return a table.

    Args:
        heads: Titles; one that begins with `>` stands to the right, as numbers do; markup is a cell already.
        rows: What `row` made.
        attributes: Of the table.
    """
    cells = [
        head
        if isinstance(head, Markup)
        else tag("th", str(head).removeprefix(">"), class_="n" if str(head).startswith(">") else None)
        for head in heads
    ]
    inner = tag("thead", tag("tr", cells)), tag("tbody", rows)
    return tag("div", tag("table", *inner, **attributes), class_="scroll")


def row(*cells: Content, href: str | None = None, class_: str | None = None) -> Markup:
    """Return a table row; cells may be markup of their own (`td`)."""
    inner = [
        cell if isinstance(cell, Markup) and cell.startswith("<td") else tag("td", cell) for cell in cells
    ]
    return tag("tr", inner, data_href=href, class_=class_, tabindex=0 if href else None)


def number(content: Content, *, class_: str = "") -> Markup:
    """Return a table cell that is aligned to the right."""
    return tag("td", content, class_=f"n {class_}".strip())


def empty(title: str, *advice: Content) -> Markup:
    """Return what stands where there is nothing: why, and what to do next."""
    return tag("div", tag("h3", title), tag("p", *advice) if advice else None, class_="empty")


def code(content: Content) -> Markup:
    """Return something to type."""
    return tag("code", content)


def _printable(value: str) -> str:
    """Return text in which control characters, and those that turn the direction of text, are seen."""
    return "".join(
        char
        if char in "\n\t"
        or (char >= " " and not "\u202a" <= char <= "\u202e" and not "\u2066" <= char <= "\u2069")
        else "\ufffd"
        for char in value
    )
