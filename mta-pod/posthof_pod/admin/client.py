"""The CLI's way to a running house: HTTP on loopback, with the standard library alone (a command starts in 50 ms).

Where it asks: `--admin URL`, else POSTHOF_ADMIN, else the MTA in `-f DIR`, else http://127.0.0.1:8025.
The token: POSTHOF_TOKEN, else `<state_dir>/admin.token`; the state folder comes from `-f DIR`, else POSTHOF_STATE,
else `var/state` and `var` here, else /run/posthof (a pod's), else /var/lib/posthof.
"""

from __future__ import annotations

import argparse
import http.client
import os
import urllib.parse
from pathlib import Path
from typing import Any, Protocol

import msgspec

from posthof_pod.admin import token

DEFAULT = "http://127.0.0.1:8025"
STATE_DIRS = ("var/state", "var", "/run/posthof", "/var/lib/posthof/state", "/var/lib/posthof")
SECONDS = 60.0


class AdminError(Exception):
    """The text is for the person at the terminal."""


class House(Protocol):
    """Whom the commands ask: one house, or all pods of an MTA as one. Everything raises AdminError."""

    def get(self, path: str, query: dict[str, Any] | None = None) -> Any:
        """The decoded JSON of a GET."""

    def post(self, path: str, body: object) -> Any:
        """The decoded JSON of a POST."""

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of an answer."""


class AdminClient:
    """One house. Raises AdminError with what went wrong and what to do."""

    def __init__(self, url: str = DEFAULT, secret: str = "") -> None:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise AdminError(f"{url!r} is no address of an admin API; it looks like {DEFAULT}")
        self.url, self.secret = url, secret
        self._host, self._port = parts.hostname, parts.port or 80

    def get(self, path: str, query: dict[str, Any] | None = None) -> Any:
        """The decoded JSON of a GET; lists in `query` repeat their key, empty values are left out."""
        return msgspec.json.decode(self.request("GET", full_path(path, query)))

    def post(self, path: str, body: object) -> Any:
        return msgspec.json.decode(self.request("POST", path, msgspec.json.encode(body)))

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of the answer. Raises AdminError where it is a refusal."""
        status, content = self.exchange(method, path, body)
        if status >= 400:
            raise AdminError(refusal(status, content))
        return content

    def exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of the answer. Raises AdminError where there is none."""
        headers = {"Content-Type": "application/json"}
        if self.secret:
            headers["Authorization"] = f"Bearer {self.secret}"
        connection = http.client.HTTPConnection(self._host, self._port, timeout=SECONDS)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise AdminError(
                f"no posthof answers at {self.url}: {error}\n"
                "is it running? `posthof up -f DIR` starts one; --admin URL asks another"
            ) from error
        finally:
            connection.close()
        return response.status, content


def full_path(path: str, query: dict[str, Any] | None) -> str:
    """With the query; lists repeat their key, empty values are left out."""
    given = {key: value for key, value in (query or {}).items() if value not in ("", None, [])}
    text = urllib.parse.urlencode(given, doseq=True)
    return f"{path}?{text}" if text else path


def refusal(status: int, content: bytes) -> str:
    try:
        told = msgspec.json.decode(content)
        text = str(told.get("error") or "; ".join(told.get("errors", []))) if isinstance(told, dict) else ""
    except msgspec.DecodeError:
        text = ""
    if status == 401:
        text += "\nmay you read it? run as the user of the service, or set POSTHOF_TOKEN"
    return text or f"the admin API answered {status}"


def add_arguments(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    """The options of every command that asks a running house. `again`: below a parser that has them already, so
    that they may stand behind the action too."""
    default = argparse.SUPPRESS if again else None
    parser.add_argument(
        "-f", "--folder", metavar="DIR", default=default, help="the manifests it runs: they name address and token"
    )
    parser.add_argument(
        "--admin", metavar="URL", default=default, help=f"its admin API (default: POSTHOF_ADMIN, or {DEFAULT})"
    )


def connect(args: argparse.Namespace) -> AdminClient:
    """The client that the options, the environment and the defaults mean. Raises AdminError."""
    given = args.admin or os.environ.get("POSTHOF_ADMIN", "")
    state = os.environ.get("POSTHOF_STATE", "")
    if args.folder:
        address, folder_state = _described(Path(args.folder))
        given, state = given or address, state or folder_state
    return AdminClient(given or DEFAULT, _secret(state))


def _secret(state: str) -> str:
    if given := os.environ.get("POSTHOF_TOKEN", ""):
        return given
    folders = (state,) if state else STATE_DIRS
    return next((found for folder in folders if (found := token.read(Path(folder)))), "")


def _described(folder: Path) -> tuple[str, str]:
    """Address and state folder that the manifests in `folder` give."""
    from posthof_pod.admin.compiled import compile_here

    compiled = compile_here(folder, Path.cwd())
    if compiled.config is None:
        raise AdminError("\n".join(compiled.errors))
    http_settings = compiled.config.http
    host = http_settings.host if http_settings.host not in ("", "0.0.0.0", "::") else "127.0.0.1"
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{host}:{http_settings.port}", compiled.config.state_dir
