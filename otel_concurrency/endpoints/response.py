"""What is answered, and how it looks on the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Response:
    """One answer.

    Attributes:
        body: All of it.
        status: Of HTTP.
        media_type: Of the body.
        headers: Further ones.
    """

    body: bytes
    status: int = 200
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self, *, keep_alive: bool, with_body: bool = True) -> bytes:
        """Return the bytes to send."""
        lines = [
            f"HTTP/1.1 {self.status} {_phrase(self.status)}",
            f"Content-Type: {self.media_type}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            f"Connection: {'keep-alive' if keep_alive else 'close'}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        return head + self.body if with_body else head


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON; what JSON does not know is told by its `repr`."""
    text = json.dumps(content, ensure_ascii=False, default=repr)
    return Response(text.encode("utf-8", "backslashreplace") + b"\n", status, headers=headers or {})


def refusal(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer that says why there is no better one."""
    return json_response({"error": reason}, status, headers)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
