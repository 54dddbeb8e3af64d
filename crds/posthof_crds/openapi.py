"""The models -> CustomResourceDefinitions: OpenAPI v3 structural schemas that `kubectl explain` can read out.

Rules of this file
- The models are the only source of fields, types, bounds and texts; forms of texts and CEL come from cel.py.
- Every text, list and map is bounded, or it is an error here: CEL's cost estimate needs it.
- Nearly no default is filled in by the API server: only what columns and the scale subresource read. All the others
  are the operator's, so that a better one reaches objects that chose nothing; their values stand in the descriptions.
- A schema refuses nothing that the models accept in a cluster, and what it accepts but they do not is told as a
  condition.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from posthof_crds import cel, core, fields
from posthof_crds.engine import TLSLevel
from posthof_crds.mistakes import bare
from posthof_crds.mta import MTASpec
from posthof_crds.parts import MODELS
from posthof_crds.relaypolicy import RelayPolicySpec
from posthof_crds.status import STATUSES
from posthof_crds.units import duration_text, size_text

Schema = dict[str, Any]

_DEFAULTED: dict[tuple[type[BaseModel], str], Any] = {
    (MTASpec, "replicas"): 1,  # the scale subresource
    (RelayPolicySpec, "priority"): 0,  # a column
    (RelayPolicySpec, "tls"): TLSLevel.BEST.value,  # a column
}


class Column(NamedTuple):
    name: str
    path: str
    type: str = "string"
    is_wide: bool = False  # only with `kubectl get -o wide`


def _condition(kind: str, part: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{part}'


_READY = Column("Ready", _condition("Ready", "status"))
_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_REASON = Column("Reason", _condition("Ready", "reason"), is_wide=True)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "MTA": (
        Column("Ready", ".status.ready"),
        Column("Queue", ".status.queue.total", "integer"),
        Column("Oldest", ".status.queue.oldest"),
        Column("Domains", ".status.domains", "integer"),
        Column("Phase", ".status.phase"),
        _AGE,
        Column("Deferred", ".status.queue.deferred", "integer", is_wide=True),
        Column("Held", ".status.queue.held", "integer", is_wide=True),
        Column("Revision", ".status.configRevision.desired", is_wide=True),
        Column("Address", ".status.addresses[0]", is_wide=True),
        _REASON,
    ),
    "MailDomain": (
        Column("Domain", ".spec.domain"),
        _READY,
        Column("MX", ".status.dns.mx"),
        Column("SPF", ".status.dns.spf"),
        Column("DKIM", ".status.dkim.state"),
        Column("DMARC", ".status.dns.dmarc"),
        _AGE,
        Column("Mode", ".spec.inbound.mode", is_wide=True),
        Column("MTA", ".status.bindings[*].mta", is_wide=True),
        _REASON,
    ),
    "RelayPolicy": (
        Column("Priority", ".spec.priority", "integer"),
        Column("Action", ".spec.action.type"),
        Column("Target", ".status.target"),
        Column("TLS", ".spec.tls"),
        _READY,
        _AGE,
        Column("Shadowed-By", ".status.shadowedBy", is_wide=True),
        _REASON,
    ),
    "SMTPCredential": (
        _READY,
        Column("Username", ".status.username"),
        Column("LastUsed", ".status.lastUsed", "date"),
        Column("Today", ".status.messagesToday", "integer"),
        Column("Expires", ".spec.expires", "date"),
        _AGE,
        _REASON,
    ),
    "AccessPolicy": (
        _READY,
        Column("MTA", ".status.bindings[*].mta"),
        _AGE,
        _REASON,
    ),
    "DKIMKey": (
        Column("Domain", ".status.domain"),
        Column("Selector", ".spec.selector"),
        Column("Algorithm", ".spec.algorithm"),
        Column("Phase", ".status.phase"),
        _READY,
        _AGE,
        Column("Since", ".status.activeSince", is_wide=True),
        Column("Record", ".status.record.state", is_wide=True),
        _REASON,
    ),
    "TLSCert": (
        _READY,
        Column("Issuer", ".status.issuer"),
        Column("Expires", ".status.notAfter"),
        Column("Renewal", ".status.renewalTime"),
        Column("Served", ".status.served"),
        _AGE,
        Column("Secret", ".status.secretName", is_wide=True),
        Column("Serial", ".status.serial", is_wide=True),
        _REASON,
    ),
}

_SELECTABLE = {
    "MTA": (".spec.hostname",),
    "MailDomain": (".spec.domain", ".spec.inbound.mode"),
    "RelayPolicy": (".spec.action.type",),
    "AccessPolicy": (),
    "SMTPCredential": (),
    "DKIMKey": (".spec.selector",),
    "TLSCert": (),
}

_MAP_LISTS = {"listeners": "name", "conditions": "type"}  # lists whose entries have a name of their own


def definitions() -> dict[str, Schema]:
    """The CustomResourceDefinition of every kind."""
    return {kind: definition(kind) for kind in MODELS}


def plural(kind: str) -> str:
    """relaypolicies, tlscerts."""
    singular = kind.lower()
    is_consonant = singular.endswith("y") and singular[-2:-1] not in "aeiou"
    return f"{singular[:-1]}ies" if is_consonant else f"{singular}s"


def definition(kind: str) -> Schema:
    group, version = core.API_VERSION.split("/")
    names = {"plural": plural(kind), "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    short = MODELS[kind].short
    shorts = {"shortNames": [short]} if short != names["singular"] else {}
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    served: Schema = {
        "name": version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}} | ({"scale": scale} if kind == "MTA" else {}),
        "additionalPrinterColumns": [_column(each) for each in COLUMNS[kind]],
    }
    if _SELECTABLE[kind]:
        served["selectableFields"] = [{"jsonPath": path} for path in _SELECTABLE[kind]]
    served["schema"] = {"openAPIV3Schema": schema_of_kind(kind)}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{group}"},
        "spec": {
            "group": group,
            "names": names | shorts | {"categories": ["mail"]},
            "scope": "Namespaced",
            "versions": [served],
        },
    }


def _column(column: Column) -> Schema:
    found: Schema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return found | {"priority": 1} if column.is_wide else found


def schema_of_kind(kind: str) -> Schema:
    """The root schema of one kind. The API server has its own idea of metadata."""
    model = MODELS[kind]
    spec = of_model(model.model_fields["spec"].annotation)
    status = of_model(STATUSES[kind])
    found: Schema = {
        "type": "object",
        "description": _text(model.__doc__),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": core.API_VERSION},
            "kind": {"type": "string", "description": kind},
            "metadata": {"type": "object"},
            "spec": {"description": _text(model.model_fields["spec"].description)} | spec,
            "status": status,
        },
    }
    return found | _validations(cel.RULES.get(model, ()))


# -- one type --------------------------------------------------------------------------------------------------------


def of_model(model: Any) -> Schema:
    """An object."""
    found: Schema = {"type": "object", "description": _text(model.__doc__)}
    required = [info.alias or name for name, info in model.model_fields.items() if info.is_required()]
    if required:
        found["required"] = required
    properties = {info.alias or name: _field(model, name, info) for name, info in model.model_fields.items()}
    if properties:
        found["properties"] = properties
    return found | _validations(cel.RULES.get(model, ()))


def _field(model: type[BaseModel], name: str, info: FieldInfo) -> Schema:
    found = of_type(info.annotation, list(info.metadata), f"{model.__name__}.{name}")
    described = _text(info.description)
    default = _DEFAULTED.get((model, name))
    if default is not None:
        found["default"] = default
    elif default_of(info) and "Default:" not in described and "Built in:" not in described:
        described = f"{described} Default: {default_of(info)}."
    if found.get("type") == "array":
        key = _MAP_LISTS.get(info.alias or name)
        kind = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]} if key else _ATOMIC
        found |= kind
    return {"description": _together(described, found.get("description", ""))} | _without(found, "description")


def _together(field: str, whole: str) -> str:
    """What the field's doc says and, where it says more, that of the object in it."""
    return f"{field} {whole}" if len(whole) > len(field) + 20 else field


def _without(schema: Schema, key: str) -> Schema:
    return {name: value for name, value in schema.items() if name != key}


_ATOMIC = {"x-kubernetes-list-type": "atomic"}


def default_of(info: FieldInfo) -> str:
    """A field's default as a manifest writes it; "" where there is nothing to say."""
    if info.is_required():
        return ""
    value = info.get_default(call_default_factory=True)
    units = {each.name for each in info.metadata if isinstance(each, fields.Unit)}
    if value is None or value is PydanticUndefined or isinstance(value, BaseModel) or value in ((), {}, ""):
        return ""
    if "duration" in units:
        return duration_text(value)
    if "size" in units:
        return size_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.value) if isinstance(value, enum.Enum) else str(value)


def of_type(annotation: Any, metadata: list[Any], where: str) -> Schema:
    """The schema of a field's type; `where` is for errors."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            metadata = [*more, *metadata]
        elif bare(annotation) is not annotation and type(None) in get_args(annotation):
            annotation = next(part for part in get_args(annotation) if part is not type(None))
        else:
            break
    flat = _flat(metadata)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return of_model(annotation)
    if get_origin(annotation) is tuple:
        return _list(annotation, flat, where)
    if get_origin(annotation) is dict:
        return _map(annotation, flat, where)
    return _scalar(annotation, flat, where)


def _flat(metadata: list[Any]) -> list[Any]:
    """FieldInfo inside Annotated brings metadata of its own."""
    found: list[Any] = []
    for each in metadata:
        found += each.metadata if isinstance(each, FieldInfo) else [each]
    return found


def _bound(metadata: list[Any], name: str) -> Any:
    found = [getattr(each, name) for each in metadata if getattr(each, name, None) is not None]
    return found[-1] if found else None


def _list(annotation: Any, metadata: list[Any], where: str) -> Schema:
    low, high = _bound(metadata, "min_length"), _bound(metadata, "max_length")
    if high is None:
        raise TypeError(f"{where} is a list without a bound")
    found: Schema = {"type": "array", "maxItems": high, "items": of_type(get_args(annotation)[0], [], where)}
    if low is not None:
        found["minItems"] = low
    return found | _ATOMIC


def _map(annotation: Any, metadata: list[Any], where: str) -> Schema:
    high = _bound(metadata, "max_length")
    if high is None:
        raise TypeError(f"{where} is a map without a bound")
    value = of_type(get_args(annotation)[1], [], where)
    return {"type": "object", "maxProperties": high, "additionalProperties": value}


def _scalar(annotation: Any, metadata: list[Any], where: str) -> Schema:
    units = {each.name for each in metadata if isinstance(each, fields.Unit)}
    if units & {"duration", "size"}:
        return _with_unit(units, metadata)
    if get_origin(annotation) is Literal:
        words = list(get_args(annotation))
        return {"type": "integer" if isinstance(words[0], int) else "string", "enum": words}
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return {"type": "string", "enum": [member.value for member in annotation]}
    if annotation is bool:
        return {"type": "boolean"}
    if annotation in (int, float):
        found: Schema = {"type": "integer", "format": "int64"} if annotation is int else {"type": "number"}
        for name, key in (("ge", "minimum"), ("le", "maximum")):
            limit = max((m.ge for m in metadata if getattr(m, "ge", None) is not None), default=None)
            if name == "le":
                limit = min((m.le for m in metadata if getattr(m, "le", None) is not None), default=None)
            if limit is not None:
                found[key] = limit
        return found
    if _is_int_or_text(annotation):
        form = next(cel.FORMS[each.func] for each in metadata if getattr(each, "func", None) in cel.FORMS)
        return {"x-kubernetes-int-or-string": True} | _of_form(form) | {"minimum": 0}
    if annotation is not str:
        raise TypeError(f"{where} has a type without a schema: {annotation}")
    return _string(metadata, where)


def _is_int_or_text(annotation: Any) -> bool:
    return {bare(part) for part in get_args(annotation)} == {int, str}


def _with_unit(units: set[str], metadata: list[Any]) -> Schema:
    bounds = [each.func for each in metadata if isinstance(getattr(each, "func", None), fields.Range)]
    if "duration" in units:
        return {"type": "string"} | _of_form(cel.DURATION, tuple(cel.between(each, "duration") for each in bounds))
    rules = tuple(cel.between(each, "size") for each in bounds)
    return {"x-kubernetes-int-or-string": True} | _of_form(cel.SIZE, rules) | {"minimum": 0}


def _string(metadata: list[Any], where: str) -> Schema:
    functions = [each.func for each in metadata if hasattr(each, "func")]
    forms = [cel.FORMS[each] for each in functions if not isinstance(each, fields.Form) and each in cel.FORMS]
    forms += [
        cel.Form(_length(each), f"^{each.rule.pattern}$") for each in functions if isinstance(each, fields.Form)
    ]
    found: Schema = {"type": "string"}
    for form in forms:
        found |= _of_form(form)
    low, high = _bound(metadata, "min_length"), _bound(metadata, "max_length")
    if high is not None:
        found["maxLength"] = min(high, found.get("maxLength", high))
    if low is not None:
        found["minLength"] = low
    if "maxLength" not in found:
        raise TypeError(f"{where} is a text without a bound")
    return found


def _length(form: fields.Form) -> int:
    return 63 if "61" in form.rule.pattern else 253


def _of_form(form: cel.Form, rules: tuple[cel.Rule, ...] = ()) -> Schema:
    found: Schema = {"maxLength": form.max_length}
    if form.min_length:
        found["minLength"] = form.min_length
    if form.pattern:
        found["pattern"] = form.pattern
    return found | _validations((*form.rules, *rules))


def _validations(rules: tuple[cel.Rule, ...]) -> Schema:
    if not rules:
        return {}
    return {"x-kubernetes-validations": [{"rule": each.cel, "message": each.message} for each in rules]}


def _text(doc: str | None) -> str:
    """A docstring's first paragraph as one line."""
    return " ".join((doc or "").strip().partition("\n\n")[0].split())
