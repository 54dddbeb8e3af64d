"""Give every claim of the cluster's own storage classes a folder: `volumes.py KUBECONFIG FOLDER SHARED`.

The cluster has no storage driver. This one process plays the part: for a pending claim of a StorageClass whose
provisioner is `posthof.dev/folder` it makes FOLDER/<namespace>-<claim>-<uid> (below SHARED, which every node mounts,
where the class says `shared: "true"`) and a hostPath volume of that name, bound to the claim; when a
volume whose policy is Delete is released, both go away. hostPath is not chowned for a pod's fsGroup, so the folder
belongs to 65532 from the start.

Rules
- Standard library only: it runs with the machine's python3, before anything of the project is installed.
- It lists, acts on what it sees, then watches only to know when to list again; whatever fails is tried again.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PROVISIONER = "posthof.dev/folder"
OWNER = 65532
Object = dict[str, Any]


class Api:
    """The few requests this needs, with the client certificate of a kubeconfig written as JSON."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server = cluster["server"]
        self.context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self.context.load_cert_chain(user["client-certificate"], user["client-key"])

    def call(self, method: str, path: str, body: Object | None = None) -> Any:
        request = urllib.request.Request(
            self.server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        return urllib.request.urlopen(request, context=self.context, timeout=60)

    def list(self, path: str) -> tuple[list[Object], str]:
        """The objects, and the version of the whole list."""
        with self.call("GET", path) as answer:
            body = json.load(answer)
        return body["items"], body["metadata"]["resourceVersion"]

    def wait_for_change(self, path: str, version: str) -> None:
        """Return at the next change after `version`, or after some seconds."""
        with self.call("GET", f"{path}?watch=1&timeoutSeconds=5&resourceVersion={version}") as stream:
            stream.readline()


def volume(claim: Object, folder: Path, policy: str) -> Object:
    """The PersistentVolume for one claim."""
    name, namespace = claim["metadata"]["name"], claim["metadata"]["namespace"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": folder.name},
        "spec": {
            "capacity": claim["spec"]["resources"]["requests"],
            "accessModes": claim["spec"]["accessModes"],
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": claim["spec"]["storageClassName"],
            "hostPath": {"path": str(folder), "type": "Directory"},
            "claimRef": {"namespace": namespace, "name": name, "uid": claim["metadata"]["uid"]},
        },
    }


def provide(api: Api, root: Path, shared: Path) -> str:
    """One pass over all claims and volumes. The version of the claims that were seen."""
    classes = {
        each["metadata"]["name"]: (
            each.get("reclaimPolicy", "Delete"),
            shared if (each.get("parameters") or {}).get("shared") == "true" else root,
        )
        for each in api.list("/apis/storage.k8s.io/v1/storageclasses")[0]
        if each["provisioner"] == PROVISIONER
    }
    volumes = {each["metadata"]["name"]: each for each in api.list("/api/v1/persistentvolumes")[0]}
    claims, version = api.list("/api/v1/persistentvolumeclaims")
    for claim in claims:
        known = classes.get(claim["spec"].get("storageClassName", ""))
        if known is None or claim["spec"].get("volumeName"):
            continue
        policy, place = known
        folder = (
            place / f"{claim['metadata']['namespace']}-{claim['metadata']['name']}-{claim['metadata']['uid'][:8]}"
        )
        if folder.name not in volumes:
            folder.mkdir(parents=True, exist_ok=True)
            os.chown(folder, OWNER, OWNER)
            folder.chmod(0o770)
            api.call("POST", "/api/v1/persistentvolumes", volume(claim, folder, policy)).close()
    for name, each in volumes.items():
        spec, released = each["spec"], each.get("status", {}).get("phase") == "Released"
        ours = spec.get("storageClassName") in classes and spec["persistentVolumeReclaimPolicy"] == "Delete"
        if released and ours:
            api.call("DELETE", f"/api/v1/persistentvolumes/{name}").close()
            shutil.rmtree(classes[spec["storageClassName"]][1] / name, ignore_errors=True)
    return version


def main(kubeconfig: str, folder: str, shared: str) -> None:
    api = Api(Path(kubeconfig))
    while True:
        try:
            version = provide(api, Path(folder), Path(shared))
            api.wait_for_change("/api/v1/persistentvolumeclaims", version)
        except (OSError, urllib.error.HTTPError, ValueError) as fault:  # the API server is away, or a claim just went
            print(f"{type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
            time.sleep(0.5)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
