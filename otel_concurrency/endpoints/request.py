"""What a client asks for: the head of an HTTP/1 request (RFC 9112), read strictly; bodies are not taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

MAX_HEAD = 16_384
"""Longest head of a request, in bytes."""

MAX_HEADERS = 100

_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]+) HTTP/1\.([01])")
_HEADER_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_END = b"\r\n\r\n"
_MAX_PARAMETERS = 50


class BadRequestError(Exception):
    """What came is no request that can be answered; the connection ends with the answer.

    Attributes:
        status: Of the answer.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        method: As it was sent.
        path: Without the query, unquoted.
        query: The last value of each parameter.
        headers: By name in lower case; what came twice is joined by a comma.
        keep_alive: Whether the client wants to go on with the connection.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    keep_alive: bool


def take_request(buffer: bytearray) -> Request | None:
    """Take the first request out of what a connection has received.

    Args:
        buffer: What was taken is removed from its beginning; the rest belongs to the next request.

    Returns:
        None as long as its head is not complete.

    Raises:
        BadRequestError: It never will be, or asks for what there is not.
    """
    while buffer.startswith(b"\r\n"):  # some send one after a body
        del buffer[:2]
    end = buffer.find(_END, 0, MAX_HEAD)
    if end < 0:
        if len(buffer) >= MAX_HEAD:
            raise BadRequestError(431, f"the head of a request is limited to {MAX_HEAD} bytes")
        return None
    first, *lines = bytes(buffer[:end]).split(b"\r\n")
    del buffer[: end + len(_END)]
    matched = _REQUEST_LINE.fullmatch(first)
    if matched is None:
        raise BadRequestError(400, "not an HTTP/1 request")
    method, target, minor = matched.groups()
    headers = _headers(lines)
    if minor == b"1" and "host" not in headers:
        raise BadRequestError(400, "no Host header")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise BadRequestError(413, "requests have no body here")
    try:
        url = urlsplit(target.decode("ascii"))
        query = dict(parse_qsl(url.query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS))
    except ValueError as error:
        raise BadRequestError(400, f"not a URL: {error}") from None
    wishes = {each.strip().lower() for each in headers.get("connection", "").split(",")}
    keep_alive = "close" not in wishes and (minor == b"1" or "keep-alive" in wishes)
    return Request(method.decode("ascii"), unquote(url.path), query, headers, keep_alive)


def _headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_HEADERS:
        raise BadRequestError(431, f"a request is limited to {MAX_HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines:
        matched = _HEADER_LINE.fullmatch(line)
        if matched is None:
            raise BadRequestError(400, "not a header")
        name = matched[1].decode("ascii").lower()
        value = matched[2].decode("latin-1").strip()
        if name in headers:
            if name in ("host", "content-length", "authorization"):
                raise BadRequestError(400, f"more than one {name} header")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers
