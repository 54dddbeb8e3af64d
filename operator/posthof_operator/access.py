"""How the API server is reached: from inside a pod, or with a kubeconfig.

Rules of this file
- Credentials are read here and nowhere else; a token is read again from its file each time it is asked for (a kubelet
  replaces it hourly), and neither stands in a log or an error.
- A kubeconfig's `exec` and `auth-provider` plug-ins are not run: in a cluster nobody needs them.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class NoAccess(Exception):
    """There is no way to the API server. The text says what to set."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """`server` is a URL; an empty `ca` trusts the system's; `token` wins over nothing, `token_file` over `token`."""

    server: str
    ca: bytes = b""
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)
    insecure: bool = False
    namespace: str = "default"

    def bearer(self) -> str:
        """The token to send now, or ""."""
        return self.token_file.read_text().strip() if self.token_file else self.token

    def ssl_context(self) -> ssl.SSLContext | None:
        """None for plain HTTP, which only tests speak."""
        if not self.server.startswith("https:"):
            return None
        context = ssl.create_default_context(cadata=self.ca.decode() if self.ca else None)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate and self.key:
            with tempfile.NamedTemporaryFile() as pair:  # the ssl module loads pairs from files only
                pair.write(self.certificate + b"\n" + self.key)
                pair.flush()
                context.load_cert_chain(pair.name)
        return context


def find(environment: Mapping[str, str] = os.environ, account: Path = ACCOUNT) -> Access:
    """KUBECONFIG first (who sets it means it), then the pod's service account, then ~/.kube/config."""
    named = environment.get("KUBECONFIG", "")
    if named:
        return from_kubeconfig(Path(named.split(os.pathsep)[0]))
    if (account / "token").exists() and environment.get("KUBERNETES_SERVICE_HOST"):
        return in_cluster(environment, account)
    home = Path.home() / ".kube/config"
    if home.exists():
        return from_kubeconfig(home)
    raise NoAccess("no way to the API server: run in a pod with a service account, or set KUBECONFIG")


def in_cluster(environment: Mapping[str, str], account: Path = ACCOUNT) -> Access:
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    return Access(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        ca=(account / "ca.crt").read_bytes(),
        token_file=account / "token",
        namespace=(account / "namespace").read_text().strip(),
    )


def from_kubeconfig(path: Path) -> Access:
    """The current context of a kubeconfig. NoAccess: it cannot be used, and why."""
    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config["contexts"], config["current-context"], "context")
        cluster = _named(config["clusters"], context["cluster"], "cluster")
        user = _named(config["users"], context["user"], "user")
        return Access(
            server=cluster["server"].rstrip("/"),
            ca=_bytes(cluster, "certificate-authority", path),
            token=user.get("token", ""),
            token_file=path.parent / user["tokenFile"] if "tokenFile" in user else None,
            certificate=_bytes(user, "client-certificate", path),
            key=_bytes(user, "client-key", path),
            insecure=bool(cluster.get("insecure-skip-tls-verify", False)),
            namespace=context.get("namespace", "default"),
        )
    except (OSError, KeyError, TypeError, yaml.YAMLError, binascii.Error) as error:
        raise NoAccess(f"{path} cannot be used: {type(error).__name__}: {error}") from None


def _named(entries: list[dict[str, Any]], name: str, what: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in entries if entry["name"] == name)[what]
    return found


def _bytes(entry: dict[str, Any], field_: str, path: Path) -> bytes:
    if f"{field_}-data" in entry:
        return base64.b64decode(entry[f"{field_}-data"])
    return (path.parent / entry[field_]).read_bytes() if field_ in entry else b""
