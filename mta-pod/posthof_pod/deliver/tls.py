"""TLS contexts for sessions we open: one per level and set of CAs, made when first needed and then shared.

TLS 1.2 is the oldest version (RFC 8996, RFC 9325). `May` and `Encrypt` look at no certificate: any encryption beats
plain text (RFC 7435). `Verify` demands a chain to a known CA and the host's name in it (RFC 9525).
"""

from __future__ import annotations

import ipaddress
import ssl

from posthof_crds.engine import TLSLevel


class ClientTLS:
    """The contexts of a worker. `ca_file`: PEM file of the CAs that `Verify` trusts, "" = the system's."""

    __slots__ = ("_ca_data", "_ca_file", "_unchecked", "_verifying")

    def __init__(self, ca_file: str = "", ca_data: str = "") -> None:
        self._ca_file = ca_file
        self._ca_data = ca_data
        self._unchecked: ssl.SSLContext | None = None
        self._verifying: ssl.SSLContext | None = None  # holds the CAs: made only where a destination demands Verify

    def context(self, level: TLSLevel) -> ssl.SSLContext:
        """The context for a level above None. Raises OSError (ssl.SSLError) where the CAs cannot be read."""
        if level is TLSLevel.VERIFY:
            if self._verifying is None:
                self._verifying = _verifying(self._ca_file, self._ca_data)
            return self._verifying
        if self._unchecked is None:
            self._unchecked = _unchecked()
        return self._unchecked


def _verifying(ca_file: str, ca_data: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file or None, cadata=ca_data or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def server_name(name: str, level: TLSLevel) -> str:
    """What to send as SNI and, for Verify, to check: "" where the name cannot stand in a certificate and need not."""
    name = name.rstrip(".")
    if level is TLSLevel.VERIFY:
        return name
    try:
        ipaddress.ip_address(name)
    except ValueError:
        is_name = 0 < len(name) < 254 and name.isascii() and all(0 < len(label) < 64 for label in name.split("."))
        return name if is_name else ""
    return ""
