"""The other end: finds programs that can be asked, and asks them. For commands, the console, and yours."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from otel_concurrency.endpoints.directory import Directory, Entry

TOKEN_VARIABLE = "OTEL_PYTHON_CONCURRENCY_HTTP_TOKEN"
TIMEOUT_S = 10.0

_MAX_BYTES = 256 * 1024 * 1024
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class NotFoundError(Exception):
    """There is no such program, or none that can be asked."""


class AskError(Exception):
    """A program did not answer, or would not.

    Attributes:
        status: Of HTTP; 0 where there was no answer.
    """

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program has answered.

    Attributes:
        status: Of HTTP: `/health` and `/ready` answer 503, too.
        media_type: Of the body.
        body: All of it.
    """

    status: int
    media_type: str
    body: bytes

    def json(self) -> Any:
        """Return the content.

        Raises:
            AskError: It is no JSON.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise AskError(f"the answer is no JSON: {error}", self.status) from None


@dataclass(frozen=True, slots=True)
class Program:
    """One process that can be asked.

    Attributes:
        url: Where it listens.
        entry: What it says of itself in the directory; None where only its URL was given.
        token: What it wants callers to know.
    """

    url: str
    entry: Entry | None = None
    token: str = ""

    def get(self, route: str, *, timeout_s: float = TIMEOUT_S, **query: object) -> Answer:
        """Ask for a route.

        Args:
            route: `/health`, `/debug/tasks` and so on; `/` lists them.
            timeout_s: For each wait; an answer in parts may take longer.
            **query: Parameters of the route.

        Raises:
            AskError: It cannot be reached, or is no program of ours.
        """
        url = self.url.rstrip("/") + route
        if query:
            url += "?" + urllib.parse.urlencode(query)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            with _open(urllib.request.Request(url, headers=headers), timeout=timeout_s) as response:
                return Answer(response.status, response.headers.get_content_type(), response.read(_MAX_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers.get_content_type(), error.read(_MAX_BYTES))
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise AskError(f"{self.url} does not answer: {reason}") from None

    def ask(self, route: str, *, timeout_s: float = TIMEOUT_S, **query: object) -> Any:
        """Ask for a route, and return its content, out of JSON.

        Raises:
            AskError: There is no such content: the program does not answer, or refuses, and says why.
        """
        answer = self.get(route, timeout_s=timeout_s, **query)
        content = answer.json() if answer.media_type == "application/json" else None
        if answer.status == 401:
            raise AskError(f"{self.url} wants a token: set {TOKEN_VARIABLE}", 401)
        if isinstance(content, dict) and set(content) == {"error"}:
            raise AskError(f"{self.url}{route}: {content['error']}", answer.status)
        if content is None:
            raise AskError(f"{self.url}{route}: no JSON (status {answer.status})", answer.status)
        return content


def programs(directory: Directory | None = None) -> list[Program]:
    """Return all programs of this user that can be asked, by process id."""
    token = os.environ.get(TOKEN_VARIABLE, "")
    return [
        Program(entry.url, entry, token if entry.needs_token else "")
        for entry in (directory or Directory()).entries()
    ]


def find(which: str | int, directory: Directory | None = None) -> Program:
    """Return a program by its process id or its URL; `host:port` and `:port` do, too.

    Raises:
        NotFoundError: There is none; the text tells how to make it one.
    """
    text = str(which).strip()
    if not text.isdecimal():
        if "://" not in text:
            text = "http://" + ("127.0.0.1" if text.startswith(":") else "") + text
        url = text.rstrip("/")
        for program in programs(directory):
            if program.url == url:
                return program
        return Program(url, None, os.environ.get(TOKEN_VARIABLE, ""))
    for program in programs(directory):
        if program.entry is not None and program.entry.pid == int(text):
            return program
    raise NotFoundError(
        f"process {text} cannot be asked: it is not there, belongs to somebody else, or was started without "
        "OTEL_PYTHON_CONCURRENCY_HTTP_PORT"
    )
