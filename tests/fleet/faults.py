"""Faults of a fleet and of its surroundings, each over within a minute; what is random in them comes from a seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.fleet.fleet import HEARTBEAT_TIMEOUT, TRIGGERERS, WORKERS
from tests.fleet.rig import Rig, Run

#: Seconds that a server is away for, at most.
_OUTAGE = 5.0


def kill_worker(rig: Rig, run: Run, random: Random) -> None:
    """Kill a worker with its tasks, and start it again."""
    _restart(rig, random.choice(WORKERS))


def suspend_worker(rig: Rig, run: Run, random: Random) -> None:
    """Suspend a worker until its tasks are taken for dead; then let it go on."""
    name = random.choice(WORKERS)
    rig.fleet.freeze(name)
    rig.fleet.pause(HEARTBEAT_TIMEOUT + random.uniform(0, 15))
    rig.fleet.thaw(name)


def kill_triggerer(rig: Rig, run: Run, random: Random) -> None:
    """Kill one of the triggerers, and start it again once the other had time to take over."""
    name = random.choice(TRIGGERERS)
    rig.fleet.kill(name)
    rig.fleet.pause(random.uniform(0, 15))
    rig.fleet.start(name)


def kill_scheduler(rig: Rig, run: Run, random: Random) -> None:
    """Kill the scheduler, and start it again."""
    _restart(rig, "scheduler")


def restart_redis(rig: Rig, run: Run, random: Random) -> None:
    """Kill Redis: the next one is empty."""
    rig.fleet.redis.stop()
    rig.fleet.pause(random.uniform(0, _OUTAGE))
    rig.fleet.redis.start()


def restart_postgres(rig: Rig, run: Run, random: Random) -> None:
    """Crash PostgreSQL, and let it recover."""
    rig.fleet.postgres.crash()
    rig.fleet.pause(random.uniform(0, _OUTAGE))
    rig.fleet.postgres.start()


def cut_bucket(rig: Rig, run: Run, random: Random) -> None:
    """Break off the next upload of a video, with the bucket's server away for a while."""
    run.bucket.strike(r"^PUT .*\.mp4", after=random.randrange(20_000), stays_down=True)
    run.bucket.struck.wait(30)
    rig.fleet.pause(random.uniform(0, _OUTAGE))
    run.bucket.reset()


def lose_replies(rig: Rig, run: Run, random: Random) -> None:
    """Lose the next replies of the vendor: of a purchase, which has been made, and of what follows it."""
    for call in ("submit", "status", "result", "download"):
        run.simulator.fault(call, random.choice(("reset", "truncated")))
        run.simulator.fault(call, "gateway", accepted=True, status=504)


FAULTS: dict[str, Callable[[Rig, Run, Random], None]] = {
    "a worker killed": kill_worker,
    "a worker suspended": suspend_worker,
    "a triggerer killed": kill_triggerer,
    "the scheduler killed": kill_scheduler,
    "Redis restarted, empty": restart_redis,
    "PostgreSQL crashed": restart_postgres,
    "the bucket away during an upload": cut_bucket,
    "replies lost": lose_replies,
}


def _restart(rig: Rig, name: str) -> None:
    rig.fleet.kill(name)
    rig.fleet.start(name)
