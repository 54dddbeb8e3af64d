"""The kinds this operator speaks of: where the API server has them.

Rules of this file
- Values only. A kind that is not here is not touched.
- A `Key` names one object; `namespace` is "" for kinds of the whole cluster.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Raw = dict[str, Any]  # an object as the API server has it in JSON

GROUP = "posthof.dev"
MANAGER = "posthof-operator"  # the field manager, and the value of the label managed-by
MANAGED_BY = "app.kubernetes.io/managed-by"
OWNED = f"{MANAGED_BY}={MANAGER}"  # label selector of every child
MTA_LABEL = f"{GROUP}/mta"
HASH = f"{GROUP}/hash"  # annotation: what was applied
PAUSED = f"{GROUP}/paused"  # annotation: hands off
FINALIZER = f"{GROUP}/operator"


class Resource(NamedTuple):
    group: str
    version: str
    plural: str
    kind: str
    is_namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", sub: str = "") -> str:
        """The URL's path: of one object, of a namespace's, or (no namespace) of all in the cluster."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if namespace and self.is_namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, sub) if part]
        return "/" + "/".join(parts)


_ALL = (
    Resource(GROUP, "v1alpha1", "mtas", "MTA"),
    Resource(GROUP, "v1alpha1", "maildomains", "MailDomain"),
    Resource(GROUP, "v1alpha1", "relaypolicies", "RelayPolicy"),
    Resource(GROUP, "v1alpha1", "accesspolicies", "AccessPolicy"),
    Resource(GROUP, "v1alpha1", "smtpcredentials", "SMTPCredential"),
    Resource(GROUP, "v1alpha1", "dkimkeys", "DKIMKey"),
    Resource(GROUP, "v1alpha1", "tlscerts", "TLSCert"),
    Resource("", "v1", "namespaces", "Namespace", is_namespaced=False),
    Resource("", "v1", "nodes", "Node", is_namespaced=False),
    Resource("", "v1", "pods", "Pod"),
    Resource("", "v1", "events", "Event"),
    Resource("", "v1", "configmaps", "ConfigMap"),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "services", "Service"),
    Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    Resource("apps", "v1", "deployments", "Deployment"),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    Resource("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject"),
    Resource("monitoring.coreos.com", "v1", "podmonitors", "PodMonitor"),
    Resource("cert-manager.io", "v1", "certificates", "Certificate"),
    Resource("externaldns.k8s.io", "v1alpha1", "dnsendpoints", "DNSEndpoint"),
    Resource(
        "certificates.k8s.io",
        "v1",
        "certificatesigningrequests",
        "CertificateSigningRequest",
        is_namespaced=False,
    ),
    Resource(
        "admissionregistration.k8s.io",
        "v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        is_namespaced=False,
    ),
)

RESOURCES = {resource.kind: resource for resource in _ALL}
OURS = ("MTA", "MailDomain", "RelayPolicy", "AccessPolicy", "SMTPCredential", "DKIMKey", "TLSCert")


class Key(NamedTuple):
    """One object, by name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def key_of(raw: Raw, kind: str = "") -> Key:
    """The key of an object. Lists leave `kind` out of their items: give it then."""
    metadata = raw["metadata"]
    return Key(kind or raw["kind"], metadata.get("namespace", ""), metadata["name"])


def owner_reference(owner: Raw, kind: str) -> Raw:
    """The reference that lets the garbage collector remove a child with its owner."""
    metadata = owner["metadata"]
    return {
        "apiVersion": RESOURCES[kind].api_version,
        "kind": kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
