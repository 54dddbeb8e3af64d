"""An account with a made password logs in and sends; nobody else does; a changed password is every pod's at once."""

from __future__ import annotations

import base64
import json

from kit import manifests
from kit.stage import Stage

SEND = """
import json, smtplib, ssl, sys
host, user, password, sender, to, key = sys.argv[1:]
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
said = {}
with smtplib.SMTP(host, 5587, timeout=30) as session:
    session.ehlo()
    said["plain"] = session.docmd("AUTH PLAIN AGEAYg==")[0]
    session.starttls(context=context)
    session.ehlo()
    try:
        said["login"] = session.login(user, password)[0] if user else 0
        said["mail"] = session.mail(sender)[0]
        said["rcpt"] = session.rcpt(to)[0]
        head = [f"From: {sender}", f"To: {to}", "Subject: hello", f"X-Id: {key}", "Bcc: secret@else.test"]
        said["data"] = session.data("\\r\\n".join([*head, "", "hello", ""]))[0]
    except smtplib.SMTPAuthenticationError as error:
        said["login"] = error.smtp_code
    except smtplib.SMTPException as error:
        said["failed"] = str(error)
print(json.dumps(said))
"""


def story(stage: Stage) -> None:
    _, sink = stage.world()
    listener = {"name": "submit", "role": "Submission", "port": 587, "tls": {"certRefs": [{"name": "edge"}]}}
    public = {"name": "mx", "role": "MX", "port": 25}
    smarthost = {"type": "Smarthost", "nextHops": [{"host": f"sink.{stage.namespace}", "port": 2525}]}
    stage.apply(
        manifests.certificate("edge", "edge.mx.test"),
        manifests.on_many_nodes(spec={"listeners": [public, listener]}),
        stage.relayed("ours.test"),
        manifests.ours("SMTPCredential", "shop", {"generate": {}, "domainRef": {"name": "ours-test"}}),
        manifests.ours(
            "RelayPolicy",
            "out",
            {"match": {"credentials": ["shop"]}, "action": smarthost, "tls": "None"},
        ),
    )
    stage.running(replicas=2)
    stage.until_condition("SMTPCredential", "shop", Ready="True", wanted=30)
    stage.until_condition("TLSCert", "edge", Served="True")
    hosts = stage.addresses()
    secret = stage.get("Secret", "shop-smtp", "v1") or {}
    user, password = (base64.b64decode(secret["data"][key]).decode() for key in ("username", "password"))

    stage.step("with its password it sends, from every pod, to anybody; the Bcc field does not travel")
    for n, host in enumerate(hosts):
        said = send(stage, host, (user, password), "orders@ours.test", f"good-{n}")
        stage.expect(said["data"] == 250, f"the account should send: {said}")
        stage.expect(said["plain"] >= 500, f"nobody logs in in the clear: {said}")
        stage.until("the mail has arrived", lambda n=n: sink.has(f"good-{n}"))
        text = sink.mails(f"good-{n}")[0]["text"]
        stage.expect("secret@else.test" not in text and "Message-ID:" in text, f"it should be put in order:\n{text}")

    stage.step("a wrong password, no password, and a sender that is not its own do not send")
    said = send(stage, hosts[0], (user, password + "x"), "orders@ours.test", "bad-0")
    stage.expect(said["login"] == 535, f"a wrong password should be refused: {said}")
    said = send(stage, hosts[0], ("nobody", password), "orders@ours.test", "bad-1")
    stage.expect(said["login"] == 535, f"an unknown name is refused with the same words: {said}")
    said = send(stage, hosts[0], ("", ""), "orders@ours.test", "bad-2")
    stage.expect(said.get("mail", 0) >= 500, f"without a login nothing is taken: {said}")
    said = send(stage, hosts[0], (user, password), "boss@bank.test", "bad-3")
    is_refused = any(said.get(word, 0) >= 500 for word in ("mail", "rcpt", "data"))
    stage.expect(is_refused, f"it may not send as somebody else: {said}")

    stage.step("`kubectl get smtpc` tells when it was used last")
    stage.until("it was used", lambda: stage.status("SMTPCredential", "shop").get("lastUsed"), wanted=60)

    stage.step("the Secret is deleted: another password is made, and the old one is worth nothing")
    stage.delete("Secret", "shop-smtp", "v1")
    fresh = stage.until("another password is there", lambda: changed(stage, password), wanted=20)
    for host in hosts:
        stage.until("the new one is known", lambda host=host: login(stage, host, user, fresh) == 235, wanted=10)
        stage.expect(login(stage, host, user, password) == 535, "the old password should be refused")
    stage.expect(not any(sink.has(f"bad-{n}") for n in range(4)), "mail that was refused has arrived")


def send(stage: Stage, host: str, login: tuple[str, str], sender: str, key: str) -> dict[str, int]:
    """The reply codes of a session with that user and password."""
    words = (host, *login, sender, "you@world.test", key)
    found: dict[str, int] = json.loads(stage.exec("traffic", "python3", "-c", SEND, *words))
    return found


def login(stage: Stage, host: str, user: str, password: str) -> int:
    return send(stage, host, (user, password), "orders@ours.test", "login")["login"]


def changed(stage: Stage, before: str) -> str:
    secret = stage.get("Secret", "shop-smtp", "v1")
    if secret is None or "password" not in (secret.get("data") or {}):
        return ""
    password = base64.b64decode(secret["data"]["password"]).decode()
    return "" if password == before else password
