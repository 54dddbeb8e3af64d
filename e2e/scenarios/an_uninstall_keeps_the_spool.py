"""Mail waits, the MTA is deleted, the release is uninstalled: a new install goes on where the old one stopped."""

from kit import manifests
from kit.stage import Stage, uninstall

WAITING = 20


def story(stage: Stage) -> None:
    traffic, sink = stage.world()
    keeps = manifests.mta(spec={"spool": {"deletionPolicy": "Retain"}})
    domain = stage.relayed("waits.test")
    stage.apply(keeps, domain)
    stage.running()
    traffic.until_answer(stage.addresses(), "x@waits.test", "250")

    stage.step("the next hop is away: mail waits")
    sink.answers(connect="421 4.3.2 not now")
    keys = [traffic.send("edge", "x@waits.test")[0] for _ in range(WAITING)]
    stage.until("the status tells of it", lambda: stage.status("MTA", "edge")["queue"]["total"] == WAITING)

    stage.step("the release is uninstalled: pods go on by themselves")
    uninstall(stage.place)
    _, reply = traffic.send("edge", "x@waits.test")
    stage.expect(reply.startswith("250"), f"without an operator mail is not taken: {reply}")

    stage.step("it is installed again, the MTA is deleted: its mail stays")
    stage.install()
    stage.running()
    stage.delete("MTA", "edge")
    stage.until("its pods are gone", lambda: not stage.pods(ready=False), wanted=20)
    stage.until("its children are gone", lambda: stage.get("Deployment", "edge", "apps/v1") is None)
    claim = stage.get("PersistentVolumeClaim", "edge-spool", "v1")
    stage.expect(claim is not None and "deletionTimestamp" not in claim["metadata"], "the claim is gone")
    stage.expect(not sink.seen(), "something was delivered while the next hop was away")

    stage.step("an MTA of the same name goes on with it")
    sink.answers()
    stage.apply(keeps)
    stage.running()
    stage.until("all that waited is delivered", lambda: set(keys) <= sink.seen(), wanted=10)
    again = sum(sink.again().values())
    stage.expect(again == 0, f"{again} were delivered twice")
