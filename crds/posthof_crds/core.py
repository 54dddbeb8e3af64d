"""What every object has (apiVersion, kind, metadata), and the two core kinds that may stand beside ours.

A Secret or ConfigMap here is what Kubernetes has under that name: other tools can read and write it. Secrets are
referred to by name; their values are never printed, logged or compiled into a config.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from posthof_crds.fields import Bool, ObjectName, Part, SecretKey, wrong

API_VERSION = "posthof.dev/v1alpha1"


class Metadata(Part):
    """Standard object metadata."""

    name: ObjectName
    """The object's name, unique for its kind. Other objects, events and `posthof explain` call it by this."""

    namespace: ObjectName | None = None
    """The Kubernetes namespace. All files of one folder must agree on it; on one machine it says nothing more."""

    labels: Annotated[dict[str, str], Field(default_factory=dict)]
    """Free labels, as in Kubernetes. Nothing on one machine reads them."""

    annotations: Annotated[dict[str, str], Field(default_factory=dict)]
    """Free annotations, as in Kubernetes. Nothing on one machine reads them."""


class Resource(Part):
    """Base of every kind. Subclasses set `kind` and, for ours, `spec`."""

    short: ClassVar[str] = ""

    metadata: Metadata
    """Name and labels."""


class MTARef(Part):
    """The MTA that an object belongs to."""

    name: ObjectName
    """The MTA's metadata.name."""

    namespace: ObjectName | None = None
    """The MTA's namespace; it must allow this object's namespace (allowedNamespaces). Default: the object's own."""


class SecretKeyRef(Part):
    """One key of a Secret in the same folder (or namespace)."""

    name: ObjectName
    """The Secret's metadata.name."""

    key: SecretKey
    """The key in its `data` or `stringData`."""


class CertRef(Part):
    """A certificate of the same folder (or namespace)."""

    name: ObjectName
    """The TLSCert's metadata.name."""


class ConfigMapKeyRef(Part):
    """One key of a ConfigMap in the same folder (or namespace)."""

    name: ObjectName
    """The ConfigMap's metadata.name."""

    key: SecretKey
    """The key in its `data`."""


def _decoded(value: str) -> str:
    try:
        base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise wrong(
            "the value is not base64", "Encode it (`base64 -w0`), or write it under stringData as it is."
        ) from None
    return value


class Secret(Part):
    """A Kubernetes Secret: key material and passwords, by reference only."""

    api_version: Literal["v1"]
    """v1"""

    kind: Literal["Secret"]
    """Secret"""

    metadata: Metadata
    """Name and labels."""

    type: str = "Opaque"
    """What Kubernetes calls its kind of content, such as kubernetes.io/tls. Nothing here depends on it."""

    immutable: Bool = False
    """As in Kubernetes. Files change when somebody changes them."""

    data: dict[SecretKey, Annotated[str, AfterValidator(_decoded)]] = Field(default={}, repr=False)
    """Values in base64."""

    string_data: dict[SecretKey, str] = Field(default={}, repr=False)
    """Values as they are; they win over `data`."""

    @property
    def key_names(self) -> set[str]:
        return {*self.data, *self.string_data}

    def value(self, key: str) -> bytes:
        """The bytes of one key; stringData wins, as in Kubernetes. KeyError: no such key."""
        if key in self.string_data:
            return self.string_data[key].encode()
        return base64.b64decode("".join(self.data[key].split()))


class ConfigMap(Part):
    """A Kubernetes ConfigMap: long lists that manifests refer to."""

    api_version: Literal["v1"]
    """v1"""

    kind: Literal["ConfigMap"]
    """ConfigMap"""

    metadata: Metadata
    """Name and labels."""

    immutable: Bool = False
    """As in Kubernetes. Files change when somebody changes them."""

    data: Annotated[dict[SecretKey, str], Field(default_factory=dict)]
    """Texts by key, such as a list of mailboxes."""

    binary_data: Annotated[dict[SecretKey, str], Field(default_factory=dict)]
    """As in Kubernetes; nothing here refers to it."""
