"""A port to listen on: the one that was asked for, or one near it, or any."""

from __future__ import annotations

import errno
import socket
import sys

NEIGHBOURS = 64
"""How many ports above the one that was asked for are tried: each worker of a server takes the next."""

_BACKLOG = 128
_TAKEN = (errno.EADDRINUSE, errno.EACCES)
_HIGHEST = 65_535


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: A name or an address of this machine.
        port: 0: any.

    Raises:
        OSError: The host is none of ours, or there is no port.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    candidates = [*range(port, min(port + NEIGHBOURS, _HIGHEST) + 1), 0] if port else [0]
    for candidate in candidates:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if sys.platform == "win32":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address[0], candidate, *address[2:]))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno not in _TAKEN or not candidate:
                raise
        except BaseException:
            listener.close()
            raise
        else:
            return listener
    raise AssertionError("the last candidate has returned or raised")


def url_of(listener: socket.socket) -> str:
    """Return the URL that leads here from this machine."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
