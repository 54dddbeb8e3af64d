"""An ACME server beside the cluster: Pebble on node-a's network, under a name that the cluster's DNS knows.

    with authority(stage) as ca:
        issuer = {"acme": {"directory": ca.directory, "caBundle": ca.roots, "solver": {"http01": {}}}}

It finds the names it is asked for by the cluster's DNS, and asks for its proofs at port 80 of their addresses.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kit.place import ROOT
from kit.stage import Stage
from posthof_certs import issue
from posthof_certs.issue import ECDSA, Order

NODE = "198.18.0.10"  # node-a, where the cluster's DNS is too
PORT = 14000


class Authority(NamedTuple):
    directory: str
    roots: str  # PEM, of the server itself


@contextlib.contextmanager
def authority(stage: Stage) -> Iterator[Authority]:
    """A fresh one; it ends with the block."""
    host = f"acme.{stage.namespace}.svc.cluster.local"
    program = subprocess.run([ROOT / "scripts" / "pebble"], capture_output=True, text=True, check=True).stdout.strip()
    made = issue.self_signed(Order((host,), ECDSA, 86400.0), time.time())
    stage.apply(_service(), _endpoints())
    home = Path(tempfile.mkdtemp(prefix="posthof-pebble-"))
    (home / "cert.pem").write_bytes(made.chain)
    (home / "key.pem").write_bytes(made.key)
    settings = {
        "listenAddress": f"{NODE}:{PORT}",
        "managementListenAddress": f"{NODE}:{PORT + 1}",
        "certificate": str(home / "cert.pem"),
        "privateKey": str(home / "key.pem"),
        "httpPort": 80,
        "tlsPort": 443,
        "retryAfter": {"authz": 1, "order": 1},
    }
    (home / "config.json").write_text(json.dumps({"pebble": settings}))
    command = [*stage.place.beside(), program, "-config", str(home / "config.json"), "-dnsserver", f"{NODE}:53"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"},
            start_new_session=True,
        )
    try:
        stage.until("the ACME server listens", lambda: "Listening on" in (home / "log").read_text(errors="replace"))
        yield Authority(f"https://{host}:{PORT}/dir", made.chain.decode())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)
        shutil.rmtree(home, ignore_errors=True)


def _service() -> dict[str, object]:
    ports = [{"name": "acme", "port": PORT, "targetPort": PORT}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "acme"},
        "spec": {"clusterIP": "None", "ports": ports},
    }


def _endpoints() -> dict[str, object]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "acme", "labels": {"kubernetes.io/service-name": "acme"}},
        "addressType": "IPv4",
        "ports": [{"name": "acme", "port": PORT, "protocol": "TCP"}],
        "endpoints": [{"addresses": [NODE]}],
    }
