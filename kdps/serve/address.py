# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Where the page is served."""

from __future__ import annotations

import ipaddress
import socket

from kdps.errors import KdpsError

LOOPBACK = "127.0.0.1"


def bind(host: str, port: int) -> socket.socket:
    """A socket of an address, which no other server has.

    Raises:
        KdpsError: the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        place = f"{url_host(host)}:{port}"
        raise KdpsError(f"--host, --port: {place} cannot be served at ({reason})") from error


def url_host(host: str) -> str:
    """The host as addresses of pages and browsers write it: IPv6 in short, and in brackets."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return f"[{address}]" if address.version == 6 else host


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
