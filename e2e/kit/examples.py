"""The manifests of examples/, as scenarios apply them: whole, changed only where the world is not there."""

from __future__ import annotations

import yaml

from kit.api import Object
from kit.manifests import merged
from kit.place import ROOT


def objects(*paths: str) -> list[Object]:
    """The objects of these files and folders below examples/, in the order of the files."""
    found: list[Object] = []
    for path in paths:
        place = ROOT / "examples" / path
        for file in sorted(place.glob("*.yaml")) if place.is_dir() else [place]:
            found += [one for one in yaml.safe_load_all(file.read_text()) if one]
    return found


def small(mta: Object) -> Object:
    """An example's MTA for a test machine: little CPU, a small claim that goes with it."""
    spec = {
        "workers": 1,
        "spool": {"size": "256Mi", "deletionPolicy": "Delete", "reserve": "1Mi", "maxUsage": 0.99},
        "drain": {"settle": "2s"},
        "podTemplate": {"resources": {"requests": {"cpu": "20m", "memory": "64Mi"}}},
    }
    return merged(mta, {"spec": spec})
