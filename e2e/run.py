"""`make e2e`: start a cluster, install the chart, run scenarios, stop it. The last line is `N passed, N failed`.

    run.py [NAME...] [--keep] [--list] [--repeat N] [--minutes N]

NAME is a scenario of e2e/scenarios, `smoke`, `fleet` (faults under load) or `all` (default). --keep uses the built
cluster that is up already, and leaves it up; --minutes begins the list again until they are over. KUBECONFIG=...
REGISTRY=... runs on any other cluster (kit/place.py).

A scenario is a file with a docstring and `story(stage)`; it may say `NODES = True` (it needs the nodes' own
processes) and `INSTALLS = True` (it brings the release itself). See docs/e2e.md.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType

os.environ.setdefault("VENV", str(Path(sys.prefix)))

from kit import place as places
from kit.api import ApiError
from kit.record import Failure, NotApplicable, Run, Told, say
from kit.stage import Stage
from kit.states import States

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"
SMOKE = ("first_mail", "a_domain_changes_under_traffic", "a_drain_under_traffic")
FLEET = (
    "the_fleet_is_scaled",
    "pods_are_killed_every_five_seconds",
    "a_node_is_frozen_and_comes_back",
    "a_node_is_cut_off_and_comes_back",
    "the_fleet_shrinks_while_the_api_server_is_away",
    "pods_are_replaced_under_traffic",
)


def scenarios() -> list[str]:
    """All names; first_mail is first, since it installs the release that the others use."""
    names = sorted(path.stem for path in (HERE / "scenarios").glob("[a-z]*.py"))
    return sorted(names, key=lambda name: name != "first_mail")


def chosen(words: list[str]) -> list[str]:
    known, picked = scenarios(), list[str]()
    for word in words or ["all"]:
        group = known if word == "all" else {"smoke": SMOKE, "fleet": FLEET}.get(word, (word,))
        picked += [name for name in group if name not in picked]
    unknown = [name for name in picked if name not in known]
    if unknown:
        raise Failure(f"there is no scenario {', '.join(unknown)}; known are: smoke fleet all {' '.join(known)}")
    return picked


def perform(place: places.Place, name: str) -> Told:
    """One scenario, from its empty namespace to its end."""
    told = Told(name)
    story: ModuleType = importlib.import_module(f"scenarios.{name}")
    say(f"\n{name}: {(story.__doc__ or '').strip().splitlines()[0]}")
    began = time.monotonic()
    stage = Stage(place, told)
    evidence = BUILD / "e2e" / name
    shutil.rmtree(evidence, ignore_errors=True)
    try:
        if getattr(story, "NODES", False) and not place.is_built:
            raise NotApplicable("it needs the nodes' own processes")
        stage.open()
        if not getattr(story, "INSTALLS", False):
            stage.install()
        with States(place.api) as states:
            story.story(stage)
        told.outcome = "passed"
        states.write(BUILD / "e2e" / "states.json")
        stage.expect(not states.faults, f"states that tools would misread: {states.faults[:5]}")
    except NotApplicable as reason:
        told.outcome, told.why = "not applicable", str(reason)
    except (Failure, ApiError) as failure:
        told.outcome, told.why = "failed", str(failure)
    except Exception as fault:
        traceback.print_exc()
        told.outcome, told.why = "failed", f"{type(fault).__name__}: {fault}"
    if told.outcome == "failed":
        stage.evidence(evidence)
        say(f"    evidence: {evidence}")
    try:
        if told.outcome != "failed" or not os.environ.get("KEEP_FAILED"):
            stage.clear()
    except (Failure, ApiError) as failure:
        if told.outcome == "passed":
            told.outcome, told.why = "failed", str(failure)
            stage.evidence(evidence)
    told.seconds = time.monotonic() - began
    say(f"  {told.outcome} after {told.seconds:.1f} s{f': {told.why}' if told.why else ''}")
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--keep", action="store_true", help="use the built cluster that is up, and leave it up")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("--repeat", type=int, default=1, help="run the list so many times")
    parser.add_argument("--minutes", type=float, default=0.0, help="run the list again until they are over")
    parser.add_argument("--no-images", action="store_true", help="the images are on the nodes already")
    args = parser.parse_args()
    if args.list:
        print("\n".join(scenarios()))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    kept, place = Run(), None
    try:
        names = chosen(args.names)
        place = places.choose(args.keep)
        place.open()
        if not args.no_images:
            place.images()
        ends = time.monotonic() + 60 * args.minutes
        for number in itertools.count(1):
            for name in names:
                kept.told.append(perform(place, name))
                kept.write(BUILD / "e2e.json")
            if number >= args.repeat and time.monotonic() >= ends:
                break
    except Failure as failure:
        say(f"e2e: {failure}")
        kept.told.append(Told("start", "failed", str(failure)))
    finally:
        if place is not None:
            place.close()
    kept.write(BUILD / "e2e.json")
    return report(kept)


def report(kept: Run) -> int:
    say("")
    for line in kept.ledger():
        say(line)
    for each in kept.told:
        if each.outcome != "passed":
            say(f"{each.outcome}: {each.name}: {each.why}")
    say(f"{kept.count('passed')} passed, {kept.count('failed')} failed")
    return 1 if kept.count("failed") else 0


if __name__ == "__main__":
    sys.exit(main())
