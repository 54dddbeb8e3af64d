"""One mistake in one object: where it is, what is wrong, what to write instead."""

from __future__ import annotations

import pytest

from kit.manifests import MTA, domain, manifest, mistake, mistakes, mta, policy, secret

MAILDIR = "mode: Maildir\nrecipients: {list: [bob]}"
OUT = "match: {clients: [10.0.0.0/8]}\naction: {type: Direct}"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("hostnam: mx.example.org", 'spec.hostnam: unknown field | Did you mean "hostname"?'),
        ("hostName: mx.example.org", 'spec.hostName: unknown field | Did you mean "hostname"?'),
        ("replicas: 0", "spec.replicas: 0 pods are no scale for a mail server: nobody would receive mail"),
        ("autoscaling: {}", "spec.autoscaling: max is missing: how many pods at most? | Write max: 10"),
        ("autoscaling: {min: 0, max: 3}", "spec.autoscaling.min: 0 pods are no scale for a mail server"),
        ("workers: many", "spec.workers: this is a text, and a whole number is wanted | Write the number"),
        ('workers: "4"', "spec.workers: this is a text, and a whole number is wanted | Write the number"),
        ("workers: 4.5", "spec.workers: this is a number, and a whole number is wanted"),
        ("workers: -1", "spec.workers: is too small | Write 0 or more."),
        ("workers: true", "spec.workers: this is true or false, and a whole number is wanted"),
        (
            "workers:",
            "spec.workers: this is nothing, and a whole number is wanted | Write a value, or remove the field",
        ),
        ("resolver: 192.0.2.1", "spec.resolver: this is a text, and a list is wanted | Write it as a list"),
        ("resolver: [dns.example.org]", "spec.resolver[0]: 'dns.example.org' is not an IP address"),
        ("resolver: ['192.0.2.1@x']", "spec.resolver[0]: '192.0.2.1@x' has no usable port"),
        ("timeouts: {dot: 600}", 'spec.timeouts.dot: a duration needs a unit | Write "600s"'),
        ("timeouts: {dot: 10 minutes}", "spec.timeouts.dot: this is not a duration"),
        ("timeouts: {dot: 2d}", "spec.timeouts.dot: 2d is out of range | Write 1s to 1h."),
        ("spool: {size: 10GB}", "spec.spool.size: this is not a size | Write bytes, or a number and Ki"),
        ("spool: {laneSize: 1Ki}", "spec.spool.laneSize: 1Ki is out of range | Write 64Ki to 64Gi."),
        ("spool: {maxUsage: 90}", "spec.spool.maxUsage: is too large | Write 1 or less."),
        ("doubleBounceTo: root", "spec.doubleBounceTo: 'root' is not a mail address"),
        ("mailRoot: ''", "spec.mailRoot: this is not a path"),
        ("user: a b", "spec.user: 'a b' is not a user name"),
        (
            "logLevel: verbose",
            'spec.logLevel: "verbose" is not known here | Known here: debug, info, warning, error.',
        ),
        ("logLevel: Info", 'spec.logLevel: "Info" is not known here | Did you mean "info"?'),
        ("egress: {addresses: [192.0.2.1, 192.0.2.2]}", "spec.egress.addresses: several addresses of one family"),
        ("egress: {helo: mx}", "spec.egress.helo: 'mx' is not a fully qualified domain name"),
        ("egress: {helo: mx_1.example.org}", "spec.egress.helo: 'mx_1.example.org' is not a fully qualified"),
        ("egress: {addresses: [eth0]}", "spec.egress.addresses[0]: 'eth0' is not an IP address"),
        ("retry: {intervals: []}", "spec.retry.intervals: has too few entries | Write at least 1."),
        (
            "limits: {destination: {connections: 2, connectionsStart: 5}}",
            "spec.limits.destination: connectionsStart is above connections",
        ),
        ("http: {address: 127.0.0.1, port: 2525}", "spec.http.port: port 2525 is the port of listener smtp"),
    ],
)
def test_mistakes_in_an_mta(spec: str, told: str) -> None:
    assert mistake(mta(more=spec)).startswith(told), mistake(mta(more=spec))


@pytest.mark.parametrize(
    ("listener", "told"),
    [
        ("{name: b, role: MX, port: 70000}", "spec.listeners[0].port: is too large | Write 65535 or less."),
        ("{name: b, role: MX}", "spec.listeners[0].port: is missing | Write port: The TCP port"),
        ("{name: B!, role: MX, port: 25}", "spec.listeners[0].name: 'B!' is not a listener name"),
        ("{name: b, role: Mx, port: 25}", 'spec.listeners[0].role: "Mx" is not known here | Did you mean "MX"?'),
        (
            "{name: b, role: Submission, port: 587}",
            "spec.listeners[0].tls: a listener of role Submission needs tls of mode STARTTLS: nobody logs in",
        ),
        (
            "{name: b, role: Submissions, port: 465}",
            "spec.listeners[0].tls: a listener of role Submissions needs tls of mode Implicit: nobody logs in",
        ),
        ("{name: b, role: MX, port: 25, address: localhost}", "spec.listeners[0].address: 'localhost' is not an IP"),
        (
            "{name: b, role: MX, port: 25, auth: {}}",
            "spec.listeners[0].auth: auth says nothing on a listener of role MX | Remove it",
        ),
        (
            "{name: b, role: MX, port: 25, tls: {certRefs: [{name: edg}]}}",
            'spec.listeners[0].tls.certRefs[0].name: there is no TLSCert "edg" | Did you mean "edge"?',
        ),
        ("{name: b, role: MX, port: 25, tls: {mode: STARTTLS}}", "spec.listeners[0].tls.certRefs: is missing"),
        (
            "{name: b, role: MX, port: 25, tls: {mode: Off, certRefs: [{name: edge}]}}",
            'spec.listeners[0].tls.mode: "Off" is not known here',
        ),
        (
            "{name: b, role: MX, port: 25, proxyProtocol: {trustedCIDRs: [10.0.0.1/8]}}",
            "spec.listeners[0].proxyProtocol.trustedCIDRs[0]: '10.0.0.1/8' has bits set behind its prefix | "
            "Write 10.0.0.0/8",
        ),
        (
            "{name: b, role: MX, port: 25, limits: {recipients: 50}}",
            "spec.listeners[0].limits.recipients: is too small | Write 100 or more.",
        ),
        (
            "{name: b, role: MX, port: 25, limits: {timeout: 5s, stressTimeout: 10s}}",
            "spec.listeners[0].limits.stressTimeout: stressTimeout is longer than timeout",
        ),
    ],
)
def test_mistakes_in_a_listener(listener: str, told: str) -> None:
    cert = manifest("TLSCert", "edge", "dnsNames: [mx.example.org]\nissuer: {selfSigned: {}}")
    found = mistake(mta(f"hostname: mx.example.org\nlisteners: [{listener}]"), cert)
    assert found.startswith(told), found


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ("{name: a, role: MX, port: 26}", 'spec.listeners[1].name: the name "a" is taken by an earlier listener'),
        ("{name: b, role: MX, port: 25}", "spec.listeners[1].port: port 25 is taken by listener a"),
        (
            "{name: b, role: MX, port: 25, address: 127.0.0.1}",
            "spec.listeners[1].port: port 25 is taken by listener a",
        ),
        ("{name: b, role: MX, port: 25, address: '::'}", "spec.listeners[1].port: port 25 is taken by listener a"),
    ],
)
def test_two_listeners_do_not_share_a_name_or_a_port(second: str, told: str) -> None:
    found = mistake(mta(f"hostname: mx.example.org\nlisteners: [{{name: a, role: MX, port: 25}}, {second}]"))
    assert found.startswith(told), found


@pytest.mark.parametrize(
    ("first", "second"),
    [("192.0.2.1", "192.0.2.2"), ("0.0.0.0", "::"), ("127.0.0.1", "::1")],
)
def test_one_port_on_different_addresses_is_fine(first: str, second: str) -> None:
    listeners = (
        f"[{{name: a, role: MX, port: 25, address: '{first}'}}, {{name: b, role: MX, port: 25, address: '{second}'}}]"
    )
    assert mistakes(mta(f"hostname: mx.example.org\nlisteners: {listeners}")) == []


@pytest.mark.parametrize(
    ("inbound", "told"),
    [
        (
            "mode: Maildir",
            "spec.inbound: recipients is missing: who exists in this domain? | Write recipients: {list",
        ),
        ("mode: Maildir\nrecipients: {}", "spec.inbound.recipients: recipients is exactly one of list, listFrom"),
        (
            "mode: Maildir\nrecipients: {list: [a], any: true}",
            "spec.inbound.recipients: recipients is exactly one of",
        ),
        ("mode: Maildir\nrecipients: {any: false}", "spec.inbound.recipients: `any: false` does not say who exists"),
        ("mode: Maildir\nrecipients: [bob]", "spec.inbound.recipients: this is a list, and an object is wanted"),
        (
            "mode: Maildir\nrecipients: {list: [bob@a.test]}",
            "spec.inbound.recipients.list[0]: 'bob@a.test' has a domain",
        ),
        ("mode: Maildir\nrecipients: {list: ['*']}", "spec.inbound.recipients.list[0]: '*' has a wildcard"),
        (
            "mode: Maildir\nrecipients: {list: [1234]}",
            "spec.inbound.recipients.list[0]: this is a number, and a text",
        ),
        (
            "mode: Maildir\nrecipients: {list: ['b b']}",
            "spec.inbound.recipients.list[0]: 'b b' is not the local part",
        ),
        ("mode: Maildir\nrecipients: {callout: {}}", "spec.inbound: callout asks a next hop, and this mode has none"),
        (
            "mode: maildir\nrecipients: {list: [a]}",
            'spec.inbound.mode: "maildir" is not known here | Did you mean "Mail',
        ),
        (
            "mode: Maildir\nrecipients: {list: [a]}\nnextHops: [{host: a}]",
            "spec.inbound: nextHops say nothing in mode",
        ),
        ("mode: LMTP\nrecipients: {list: [a]}", "spec.inbound: mode LMTP needs nextHops"),
        (
            "mode: LMTP\nrecipients: {list: [a]}\nnextHops: [{}]",
            "spec.inbound.nextHops[0]: a next hop is exactly one",
        ),
        (
            "mode: LMTP\nrecipients: {list: [a]}\nnextHops: [{host: a, socket: /b}]",
            "spec.inbound.nextHops[0]: a next hop is exactly one of host, mx, srv, socket; host and socket are there",
        ),
        (
            "mode: LMTP\nrecipients: {list: [a]}\nnextHops: [{mx: a.test}]",
            "spec.inbound: LMTP goes to a host or a socket",
        ),
        ("mode: Relay\nrecipients: {list: [a]}\nnextHops: [{socket: /b}]", "spec.inbound: a socket speaks LMTP"),
        (
            "mode: LMTP\nrecipients: {list: [a]}\nnextHops: [{socket: /b, port: 24}]",
            "spec.inbound.nextHops[0]: a port says nothing here",
        ),
        (
            "mode: Relay\nrecipients: {list: [a]}\nnextHops: [{srv: a.test}]",
            "spec.inbound.nextHops[0].srv: 'a.test' is",
        ),
        ("mode: Alias", "spec.inbound: mode Alias without aliases or catchAll"),
        (
            "mode: Alias\naliases: {info: bob@x.test}",
            "spec.inbound.aliases.info: this is a text, and a list is wanted",
        ),
        ("mode: Alias\naliases: {info: []}", "spec.inbound.aliases.info: has too few entries"),
        ("mode: Alias\naliases: {info@a.test: [b@x.test]}", 'spec.inbound.aliases["info@a.test"]: '),
        (
            "mode: Alias\naliases: {info: [b@x.test]}\nrecipients: {any: true}",
            "spec.inbound: mode Alias has no mailboxes",
        ),
        (
            "mode: Alias\naliases: {info: [b@x.test]}\nrecipients: {list: [inf]}",
            'spec.inbound.recipients.list[0]: "inf" has no alias',
        ),
        ("mode: Reject\nrecipients: {list: [a]}", "spec.inbound: recipients say nothing in mode Reject"),
        ("mode: Reject\naliases: {info: [b@x.test]}", "spec.inbound: mode Reject takes mail for postmaster alone"),
        ("mode: Reject\nrejectText: 'Grüße'", "spec.inbound.rejectText: a reply is one line"),
        (f"{MAILDIR}\nrejectText: no", "spec.inbound: rejectText says nothing in mode Maildir"),
        (f"{MAILDIR}\nseparator: '++'", "spec.inbound.separator: '++' is not a separator"),
        (f"{MAILDIR}\nmaildir: '{{domain}}'", "spec.inbound.maildir: all mailboxes would be one folder"),
        (f"{MAILDIR}\nmaildir: '../{{local}}'", "spec.inbound.maildir: a Maildir lies below the MTA's mailRoot"),
        (f"{MAILDIR}\nmaildir: '/{{local}}'", "spec.inbound.maildir: a Maildir lies below the MTA's mailRoot"),
        (f"{MAILDIR}\nmaildir: '{{user}}'", "spec.inbound.maildir: unknown placeholder {user}"),
        (
            "mode: LMTP\nnextHops: [{host: a}]\nrecipients: {any: true}\ncatchAll: [bob@x.test]",
            "spec.inbound: catchAll is never reached",
        ),
        (f"{MAILDIR}\naliases: {{info: [alise]}}", "spec.inbound.aliases.info[0]: nobody is alise@a.test"),
        (
            f"{MAILDIR}\naliases: {{info: [bobb]}}",
            'spec.inbound.aliases.info[0]: nobody is bobb@a.test | Did you mean "b',
        ),
        (f"{MAILDIR}\ncatchAll: [carol]", "spec.inbound.catchAll[0]: these aliases lead back"),
    ],
)
def test_mistakes_in_a_mail_domain(inbound: str, told: str) -> None:
    found = mistake(domain("a", inbound))
    assert found.startswith(told), found


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("localhost", "'localhost' is not a fully qualified domain name"),
        ("a.test.", "a name is written without the final dot | Write a.test."),
        ("'*.a.test'", "'*.a.test' is not a fully qualified domain name"),
        ("192.0.2.1", "'192.0.2.1' is not a fully qualified domain name"),
        ("bob@a.test", "'bob@a.test' is not a fully qualified domain name"),
        ("'ex\u2260mple.org'", "is not a"),
    ],
)
def test_a_domain_is_a_full_name(name: str, told: str) -> None:
    assert told in mistake(domain("a", MAILDIR, place=name))


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("action: {type: Directly}", 'spec.action.type: "Directly" is not known here | Did you mean "Direct"?'),
        ("match: {clients: [10.0.0.0/8]}", "spec.action: is missing | Write action: What becomes of it."),
        (
            "match: {credentials: [bob]}\naction: {type: Reject}",
            'spec.match.credentials[0]: there is no SMTPCredential "bob"',
        ),
        (
            "match: {podSelector: {app: web}}\naction: {type: Reject}",
            "spec.match.podSelector.app: unknown field | Known here: matchExpressions, matchLabels.",
        ),
        (
            "match: {client: [10.0.0.0/8]}\naction: {type: Reject}",
            'spec.match.client: unknown field | Did you mean "clients"',
        ),
        ("match: {clients: [office]}\naction: {type: Reject}", "spec.match.clients[0]: 'office' is not a network"),
        (
            "match: {clients: ['::ffff:10.0.0.0/104']}\naction: {type: Reject}",
            "spec.match.clients[0]: '::ffff:10.0.0.0/104' is IPv4 in IPv6 clothes",
        ),
        (
            "match: {senders: ['@a.test']}\naction: {type: Reject}",
            "spec.match.senders[0]: '@a.test' is not an address patt",
        ),
        (
            "match: {headers: [{name: 'X:'}]}\naction: {type: Reject}",
            "spec.match.headers[0].name: 'X:' is not a header",
        ),
        (
            "match: {listenerRoles: [submission]}\naction: {type: Reject}",
            "spec.match.listenerRoles[0]: ",
        ),
        ("match: {clients: [10.0.0.0/8]}\naction: {type: Smarthost}", "spec.action: Smarthost needs nextHops"),
        (
            "match: {clients: [10.0.0.0/8]}\naction: {type: Direct, nextHops: [{host: a}]}",
            "spec.action: nextHops says nothing",
        ),
        (
            "match: {clients: [10.0.0.0/8]}\naction: {type: Direct, text: no}",
            "spec.action: text says nothing for Direct",
        ),
        ("match: {recipients: [x.test]}\naction: {type: Redirect}", "spec.action: Redirect needs addresses"),
        ("action: {type: Reject, code: 450, status: 5.7.1}", "spec.action: code 450 and status 5.7.1 disagree"),
        ("action: {type: Reject, code: 250}", "spec.action.code: is too small | Write 400 or more."),
        ("action: {type: Reject, status: x}", "spec.action.status: 'x' is not an enhanced status code"),
        (f"{OUT}\ntls: Must", 'spec.tls: "Must" is not known here'),
        (f"{OUT}\npriority: high", "spec.priority: this is a text, and a whole number is wanted"),
        (
            "match: {clients: [10.0.0.0/8]}\naction: {type: LMTP, nextHops: [{socket: /x}], auth: {secretName: s}}",
            "spec.action: auth says nothing for LMTP",
        ),
    ],
)
def test_mistakes_in_a_relay_policy(spec: str, told: str) -> None:
    found = mistake(policy("p", spec))
    assert found.startswith(told), found


@pytest.mark.parametrize(
    ("tls", "host", "told"),
    [
        ("May", "smtp.example.org", "spec.tls: auth with tls May could send the password in plain text"),
        ("None", "10.0.0.1", "spec.tls: auth with tls None could send the password in plain text"),
        ("May", "127.0.0.1", ""),
        ("May", "localhost", ""),
        ("Encrypt", "smtp.example.org", ""),
    ],
)
def test_a_password_is_not_sent_in_plain_text(tls: str, host: str, told: str) -> None:
    spec = f"""
    match: {{clients: [10.0.0.0/8]}}
    action: {{type: Smarthost, nextHops: [{{host: {host}}}], auth: {{secretName: login}}}}
    tls: {tls}
    """
    found = mistakes(policy("p", spec), secret("login", username="bob", password="xyzzy"))
    assert [f"{each.path}: {each.what}" for each in found] == ([told] if told else [])


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            "dnsNames: [mx.example.org]\nissuer: {}",
            "spec.issuer: issuer is exactly one of selfSigned, ca, acme, secretRef, certManager, csr, files",
        ),
        (
            "dnsNames: [mx.example.org]\nissuer: {csr: {signerName: example.org/all}}",
            "spec.issuer.csr: csr works in a cluster, where the operator asks for the certificate | Write",
        ),
        (
            "dnsNames: [mx.example.org]\nissuer: {acme: {solver: {dns01: {dnsEndpoint: {}}}}}",
            "spec.issuer.acme.solver.dns01.dnsEndpoint: dnsEndpoint works in a cluster, where ExternalDNS reads such",
        ),
        (
            "dnsNames: [mx.example.org]\nissuer: {acme: {solver: {dns01: {rfc2136: {server: 192.0.2.1, "
            "tsig: {name: k, secretName: none}}}}}}",
            'spec.issuer.acme.solver.dns01.rfc2136.tsig: there is no Secret "none"',
        ),
        ("dnsNames: []\nissuer: {selfSigned: {}}", "spec.dnsNames: has too few entries"),
        (
            "dnsNames: [mx.example.org]\nissuer: {acme: {}}",
            "spec.issuer.acme.solver: is missing | Write solver: How the names are proven to be yours.",
        ),
        (
            "dnsNames: [mx.example.org]\nissuer: {secretRef: {name: no}}",
            'spec.issuer.secretRef: there is no Secret "no"',
        ),
        (
            "dnsNames: [mx.example.org]\nissuer: {secretRef: {name: login}}",
            'spec.issuer.secretRef: Secret "login" has no key "tls.crt"',
        ),
        ("dnsNames: [mx.example.org]\nissuer: {files: {cert: a.pem}}", "spec.issuer.files.key: is missing"),
    ],
)
def test_mistakes_in_a_tls_cert(spec: str, told: str) -> None:
    found = mistakes(manifest("TLSCert", "c", spec), secret("login", password="xyzzy"))
    assert f"{found[0].path}: {found[0].what} | {found[0].instead}".startswith(told), found


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (
            "kind: TLSCert\nmetadata: {name: a}\nspec: {}",
            "apiVersion: apiVersion is missing | Write apiVersion: posthof.dev/v1alpha1.",
        ),
        (
            "apiVersion: v2\nkind: Secret\nmetadata: {name: a}",
            "apiVersion: this apiVersion is not known | Write apiVersion: v1.",
        ),
        ("apiVersion: v1\nmetadata: {name: a}", ": kind is missing | Write kind: one of MTA, MailDomain"),
        ("apiVersion: v1\nkind: MailDomian", 'kind: this kind is not known | Did you mean "MailDomain"?'),
        (
            "apiVersion: v1\nkind: EgressPool",
            "kind: this kind is not known | Remove it: EgressPool is not in this version",
        ),
        ("apiVersion: v1\nkind: List\nitems: []", "kind: this kind is not known | Write each item as a document"),
        ("apiVersion: v1\nkind: Secret", "metadata: is missing"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {}", "metadata.name: is missing"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: A B}", "metadata.name: 'A B' is not a name"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: a, uid: 1}", "metadata.uid: unknown field"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {x: '!'}", "data.x: the value is not base64"),
        ("apiVersion: v1\nkind: [MTA]", "kind: this kind is not known"),
    ],
)
def test_mistakes_in_what_all_kinds_share(document: str, told: str) -> None:
    found = mistake(mta(), document)
    assert found.startswith(told), found


def test_a_secret_s_value_never_stands_in_a_mistake() -> None:
    document = (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {x: xyzzy!, y: [xyzzy]}\nstringData: {z: 12345}\n"
    )
    found = "\n".join(str(each) for each in mistakes(mta(), document))
    assert found.lower().count("data.") == 3
    assert "xyzzy" not in found
    assert "12345" not in found


def test_all_mistakes_come_at_once_in_the_order_of_the_file() -> None:
    found = mistakes(
        mta(MTA + "worker: 3\nspool: {size: many}"),
        domain("a", "mode: Maildir"),
        domain("b", MAILDIR, place="c.test"),
        domain("c", MAILDIR),
        policy("p", "action: {type: Direct}"),
        "kind: Nonsense",
    )
    assert [each.what for each in found] == [
        "unknown field",
        "this is not a size",
        "recipients is missing: who exists in this domain?",
        "the domain c.test has a MailDomain already: b",
        "this would be an open relay: it matches all mail",
        "this kind is not known",
    ]
    assert [each.line for each in found] == sorted(each.line for each in found)
    assert all(each.instead for each in found)


def test_a_mistake_reads_like_this() -> None:
    (found,) = mistakes(mta(), domain("acme", "mode: Maildir\nrecipients: {lst: [bob]}"))[:1]
    assert str(found) == (
        "all.yaml:17 (document 2): MailDomain/acme spec.inbound.recipients.lst: unknown field\n"
        '    Did you mean "list"? known here: any, callout, list, listFrom.'
    ), str(found)
