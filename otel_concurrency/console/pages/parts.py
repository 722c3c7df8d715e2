"""Pieces that several pages show: tiles, pairs of names and values, links to what is named."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from otel_concurrency.console.pages.address import STICKY, Address
from otel_concurrency.console.pages.markup import Content, Markup, link, tag

MAX_VALUE = 20_000
"""Characters of one value that are shown."""


def tile(title: str, value: Content, note: Content = "", *, href: str = "", tone: str = "") -> Markup:
    """Return a number with its name, and what it means."""
    inner = (
        tag("span", title, class_="t"),
        tag("span", value, class_="v"),
        tag("span", note, class_="d"),
    )
    if href:
        return link(href, *inner, class_=f"tile {tone}".strip())
    return tag("div", *inner, class_=f"tile {tone}".strip())


def tiles(each: Iterable[Markup]) -> Markup:
    """Return tiles side by side."""
    return tag("div", list(each), class_="tiles")


def pairs(values: Mapping[str, Any], links: Mapping[str, str] | None = None) -> Markup:
    """Return names and values; values that have a link lead there."""
    told = links or {}
    return tag(
        "dl",
        [
            (
                tag("dt", key),
                tag("dd", link(told[key], value_text(value)) if key in told else _value(value)),
            )
            for key, value in values.items()
        ],
    )


def value_text(value: Any) -> str:
    """Return a value of an attribute as text, cut where it is endless."""
    told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return told if len(told) <= MAX_VALUE else f"{told[:MAX_VALUE]} … and {len(told) - MAX_VALUE:,} more"


def function_link(address: Address, service: str, function: str) -> Markup:
    """Return a coroutine's name that leads to its row."""
    return link(address.to("/tasks", focus=f"{service}:{function}"), short(function), title=function)


def trace_link(address: Address, trace_id: str, span_id: str = "", label: Content = None) -> Markup:
    """Return a trace's id that leads to it."""
    href = address.to(f"/trace/{trace_id}", span=span_id)
    return link(href, label if label is not None else tag("code", trace_id[:8]))


def short(function: str, parts: int = 3) -> str:
    """Return the end of a qualified name, which tells most."""
    split = function.split(".")
    return function if len(split) <= parts else "…" + ".".join(split[-parts:])


def panel(title: Content, *content: Content, class_: str = "") -> Markup:
    """Return content with a heading."""
    return tag("section", tag("h3", title), *content, class_=f"panel {class_}".strip())


def filters(address: Address, *fields: Content, submit: str = "Filter") -> Markup:
    """Return a form whose fields become this page's state."""
    kept = [
        tag("input", type="hidden", name=key, value=value) for key, value in address.query if key in STICKY
    ]
    return tag(
        "form", kept, *fields, tag("button", submit, type="submit"), action=address.path, class_="filters"
    )


def field(name: str, address: Address, placeholder: str, *, kind: str = "search", size: int = 18) -> Markup:
    """Return an input that holds a part of the state."""
    return tag(
        "input",
        type=kind,
        name=name,
        value=address.get(name),
        placeholder=placeholder,
        aria_label=placeholder,
        size=size,
        autocomplete="off",
        data_search=name == "q",
    )


def choice(name: str, address: Address, options: Mapping[str, str], label: str) -> Markup:
    """Return a choice between values, shown by their names; it is sent at once."""
    chosen = address.get(name)
    told = [tag("option", shown, value=value, selected=value == chosen) for value, shown in options.items()]
    return tag("select", told, name=name, aria_label=label, data_submit=True)


def tick(name: str, address: Address, label: str) -> Markup:
    """Return a box to tick; it is sent at once."""
    box = tag(
        "input", type="checkbox", name=name, value="1", checked=address.get(name) == "1", data_submit=True
    )
    return tag("label", box, label)


def _value(value: Any) -> Markup:
    told = value_text(value)
    return tag("pre", told) if "\n" in told else tag("span", told)
