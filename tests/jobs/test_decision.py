"""What an attempt does, given the record and the file at the path: one table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayDeliveryFailed
from airflow_provider_luma.jobs.decision import Action, Decision, Place, decide
from airflow_provider_luma.jobs.ledger import Standing
from airflow_provider_luma.jobs.record import Clears, Identity, JobRecord
from tests.jobs.takes import ME, PATH, SIBLING, YESTERDAY, take

NOTHING, SOMEBODYS = Place(is_taken=False), Place(is_taken=True)
#: A retry, and an attempt after a clear, of what was bought by `take(...)`.
RETRY, CLEAR = Clears(max_tries=2, clear_number=0), Clears(max_tries=4, clear_number=1)


def mine(state: str, claim: str = "mine", **values: Any) -> JobRecord:
    return take(state, claim=claim, **{"cleared": RETRY} | values)


def theirs(state: str, owner: Identity = YESTERDAY, **values: Any) -> JobRecord:
    return take(state, owner=owner, claim="theirs", **values)


def decision(
    *takes: JobRecord,
    place: Place = NOTHING,
    cleared: Clears = RETRY,
    fingerprint: str | None = "same",
    if_exists: str = "overwrite",
    output_path: str = PATH,
) -> Decision:
    """Decide, with the last of the takes as the path's current one."""
    own = [one for one in takes if one.identity == ME]
    standing = Standing(
        own=own[-1] if own else None, current=takes[-1] if takes else None, takes=tuple(takes)
    )
    return decide(
        standing,
        place,
        identity=ME,
        cleared=cleared,
        fingerprint=fingerprint,
        output_path=output_path,
        if_exists=if_exists,
    )


def holds(one: JobRecord) -> Place:
    return Place(is_taken=True, holds=one)


DELIVERED, HERS = mine("delivered"), theirs("delivered")


@pytest.mark.parametrize(
    ("takes", "place", "action"),
    [
        pytest.param((), NOTHING, Action.BUY, id="nothing there"),
        pytest.param((mine("intent"),), NOTHING, Action.LOOK_UP, id="died around the paid call"),
        pytest.param((mine("submitted"),), NOTHING, Action.REATTACH, id="died while waiting"),
        pytest.param((mine("completed"),), NOTHING, Action.REATTACH, id="died while downloading"),
        pytest.param((DELIVERED,), holds(DELIVERED), Action.RETURN, id="delivered and in its place"),
        pytest.param((DELIVERED,), NOTHING, Action.REATTACH, id="delivered and gone"),
        pytest.param((DELIVERED,), SOMEBODYS, Action.REATTACH, id="delivered, and another file is there"),
        pytest.param((mine("failed"),), NOTHING, Action.BUY, id="refused"),
        pytest.param(
            (mine("failed", request_id="r1"),), NOTHING, Action.CHECK_FAILED, id="FAILED, says the vendor"
        ),
        pytest.param(
            (mine("failed", request_id="r1", fingerprint="old"),),
            NOTHING,
            Action.BUY,
            id="FAILED, of other inputs",
        ),
        pytest.param((theirs("failed", SIBLING),), NOTHING, Action.BUY, id="a sibling's failure"),
        pytest.param((theirs("given_up"),), NOTHING, Action.BUY, id="yesterday's is given up"),
        pytest.param((HERS,), holds(HERS), Action.BUY, id="yesterday's is overwritten"),
        pytest.param((HERS,), NOTHING, Action.BUY, id="yesterday's is gone"),
        pytest.param((), SOMEBODYS, Action.BUY, id="somebody's file is overwritten"),
        pytest.param((HERS, DELIVERED), holds(HERS), Action.REATTACH, id="restored by hand to yesterday's"),
        pytest.param((DELIVERED, HERS), holds(HERS), Action.REATTACH, id="another run's came after"),
    ],
)
def test_action(takes: tuple[JobRecord, ...], place: Place, action: Action) -> None:
    assert decision(*takes, place=place).action is action


@pytest.mark.parametrize("if_exists", ["overwrite", "keep"])
def test_only_a_clear_buys_after_a_job_was_given_up(if_exists: str) -> None:
    given_up = mine("given_up")
    with pytest.raises(LumaRayConfigurationError, match="a retry buys no other"):
        decision(given_up, if_exists=if_exists)
    assert decision(given_up, if_exists=if_exists, cleared=CLEAR).action is Action.BUY
    unknown = mine("given_up", cleared=Clears())
    assert decision(unknown, if_exists=if_exists).action is Action.BUY, "else nothing could ever be bought"


def test_a_video_is_not_put_over_another_one_of_the_same_run() -> None:
    hers = theirs("delivered", SIBLING)
    moved = mine("submitted", output_path="/before.mp4")
    with pytest.raises(LumaRayConfigurationError, match="in the same run"):
        decision(moved, hers, place=holds(hers))
    assert decision(moved, hers).action is Action.REATTACH, "her clip was moved away"
    assert decision(DELIVERED, hers, place=holds(hers), if_exists="reuse").action is Action.REUSE


# A retry, and a clear


@pytest.mark.parametrize("fingerprint", ["same", "another", None])
@pytest.mark.parametrize(
    ("state", "action"),
    [
        ("intent", Action.LOOK_UP),
        ("submitted", Action.REATTACH),
        ("completed", Action.REATTACH),
        ("delivered", Action.RETURN),
    ],
)
def test_a_retry_finishes_what_was_bought_whatever_its_inputs(
    state: str, action: Action, fingerprint: str | None
) -> None:
    bought = mine(state)
    place = holds(bought) if state == "delivered" else NOTHING
    assert decision(bought, place=place, fingerprint=fingerprint) == Decision(
        action, bought, inputs_left_aside=fingerprint == "another"
    )


@pytest.mark.parametrize("state", ["intent", "submitted", "completed", "delivered"])
def test_a_clear_buys_for_the_current_inputs_and_names_the_job_it_leaves(state: str) -> None:
    bought = mine(state)
    leaves = None if state == "delivered" else bought
    assert decision(bought, cleared=CLEAR, fingerprint="another") == Decision(Action.BUY, leaves=leaves)


@pytest.mark.parametrize(("state", "action"), [("intent", Action.LOOK_UP), ("submitted", Action.REATTACH)])
def test_a_clear_with_the_same_inputs_finishes_what_was_bought(state: str, action: Action) -> None:
    assert decision(mine(state), cleared=CLEAR) == Decision(action, mine(state))


@pytest.mark.parametrize(
    ("before", "after", "cleared"),
    [
        ((2, 0), (2, 0), False),
        ((2, 0), (4, 1), True),
        ((2, 0), (2, 1), False),  # another task of the run was cleared
        ((2, 0), (4, 0), True),  # by the API with reset_dag_runs=false
        ((4, 0), (2, 0), False),  # an attempt that outlived the clear
        ((4, 1), (2, 0), False),
        ((2, None), (4, None), True),
        ((2, None), (2, None), False),
        ((None, None), (4, 1), False),
        ((2, 0), (None, None), False),
    ],
)
def test_a_clear_changes_both_numbers_and_in_doubt_it_is_a_retry(
    before: tuple[Any, Any], after: tuple[Any, Any], cleared: bool
) -> None:
    earlier, now = (Clears(max_tries=tries, clear_number=number) for tries, number in (before, after))
    assert now.is_cleared_since(earlier) is cleared


def test_an_earlier_take_of_the_current_inputs_is_resumed() -> None:
    first, second = mine("delivered", claim="first"), mine("delivered", claim="second", fingerprint="another")
    assert decision(first, second, place=holds(second), cleared=CLEAR) == Decision(Action.REATTACH, first)
    lost = mine("intent", claim="first")
    assert decision(lost, second, place=holds(second), cleared=CLEAR) == Decision(Action.LOOK_UP, lost)


@pytest.mark.parametrize("state", ["failed", "given_up"])
def test_an_earlier_take_that_bought_nothing_is_not_resumed(state: str) -> None:
    first, second = mine(state, claim="first"), mine("delivered", claim="second", fingerprint="another")
    assert decision(first, second, place=holds(second), cleared=CLEAR).action is Action.BUY


def test_a_new_path_does_not_buy_again() -> None:
    there = holds(DELIVERED)
    assert decision(DELIVERED, place=there, output_path="/clips/b.mp4").action is Action.REATTACH


# What lies at the path


@pytest.mark.parametrize("if_exists", ["reuse", "fail"])
@pytest.mark.parametrize("state", ["intent", "submitted", "completed"])
def test_a_job_in_flight_takes_precedence_over_the_file_at_the_path(state: str, if_exists: str) -> None:
    action = decision(mine(state), place=SOMEBODYS, if_exists=if_exists).action
    assert action in (Action.LOOK_UP, Action.REATTACH)


@pytest.mark.parametrize("hers", [HERS, theirs("delivered", fingerprint="another")])
def test_if_exists_reuse_takes_another_runs_video(hers: JobRecord) -> None:
    assert decision(hers, place=holds(hers), if_exists="reuse") == Decision(Action.REUSE, hers)


@pytest.mark.parametrize("takes", [(), (HERS,)], ids=["no record", "yesterday's record"])
def test_if_exists_reuse_takes_a_file_without_a_record(takes: tuple[JobRecord, ...]) -> None:
    assert decision(*takes, place=SOMEBODYS, if_exists="reuse") == Decision(Action.REUSE, None)


def test_if_exists_reuse_takes_a_newer_video_than_its_own() -> None:
    assert decision(DELIVERED, HERS, place=holds(HERS), if_exists="reuse") == Decision(Action.REUSE, HERS)


def test_if_exists_reuse_does_not_take_a_damaged_newer_video() -> None:
    decided = decision(DELIVERED, HERS, place=SOMEBODYS, if_exists="reuse")
    assert decided == Decision(Action.REATTACH, DELIVERED)


@pytest.mark.parametrize("takes", [(HERS,), (DELIVERED, HERS)])
def test_if_exists_fail_refuses_another_runs_video(takes: tuple[JobRecord, ...]) -> None:
    with pytest.raises(
        LumaRayConfigurationError, match=r"'/clips/a\.mp4' already exists, and if_exists='fail'"
    ):
        decision(*takes, place=holds(HERS), if_exists="fail")


@pytest.mark.parametrize("if_exists", ["reuse", "fail"])
def test_if_exists_does_not_apply_to_the_task_instances_own_takes(if_exists: str) -> None:
    old = mine("delivered", fingerprint="old")
    decided = decision(old, place=holds(old), cleared=CLEAR, if_exists=if_exists)
    assert decided.action is Action.BUY


# Others on the same path


@pytest.mark.parametrize("state", ["intent", "submitted", "completed"])
@pytest.mark.parametrize("owner", [SIBLING, YESTERDAY])
def test_a_path_with_anothers_job_in_flight_is_refused_naming_both(state: str, owner: Identity) -> None:
    with pytest.raises(LumaRayConfigurationError) as refused:
        decision(theirs(state, owner))
    text = str(refused.value)
    assert str(owner) in text
    assert str(ME) in text
    assert f"python -m airflow_provider_luma give-up {PATH}" in text


@pytest.mark.parametrize("state", ["intent", "submitted", "completed", "delivered"])
def test_a_bought_job_waits_for_its_path_until_the_other_is_done(state: str) -> None:
    with pytest.raises(LumaRayDeliveryFailed, match="has job id-of-theirs in flight there") as waits:
        decision(mine(state), theirs("submitted"))
    assert waits.value.request_id == mine(state).request_id


@pytest.mark.parametrize(
    ("if_exists", "fingerprint"),
    [("overwrite", "same"), ("fail", "same"), ("overwrite", "another"), ("reuse", "another")],
)
def test_two_mapped_indices_of_one_run_may_not_share_a_path(if_exists: str, fingerprint: str) -> None:
    hers = theirs("delivered", SIBLING, fingerprint=fingerprint)
    with pytest.raises(LumaRayConfigurationError, match="in the same run"):
        decision(hers, place=holds(hers), if_exists=if_exists)


@pytest.mark.parametrize("own", [(), (mine("delivered", fingerprint="old"),), (mine("failed"),)])
def test_the_same_clip_under_another_index_is_reused(own: tuple[JobRecord, ...]) -> None:
    hers = theirs("delivered", SIBLING)
    decided = decision(*own, hers, place=holds(hers), cleared=CLEAR, if_exists="reuse")
    assert decided == Decision(Action.REUSE, hers)


@pytest.mark.parametrize("place", [NOTHING, SOMEBODYS])
def test_the_same_clip_under_another_index_is_refused_if_its_video_is_damaged(place: Place) -> None:
    with pytest.raises(LumaRayConfigurationError, match="in the same run"):
        decision(theirs("delivered", SIBLING), place=place, if_exists="reuse")


# Who is asking


def test_an_identity_does_not_depend_on_the_attempt() -> None:
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=3)
    context: Any = {"ti": ti}
    assert Identity.of(context) == Identity(dag_id="d", run_id="r", task_id="t")


@pytest.mark.parametrize(
    ("ti", "run", "clears"),
    [
        ({"max_tries": 3}, {"clear_number": 1}, Clears(max_tries=3, clear_number=1)),
        ({}, {}, Clears()),
        ({"max_tries": "3"}, {"clear_number": True}, Clears()),
    ],
)
def test_clears_come_from_airflow(ti: dict[str, Any], run: dict[str, Any], clears: Clears) -> None:
    context: Any = {"ti": SimpleNamespace(**ti), "dag_run": SimpleNamespace(**run)}
    assert Clears.of(context) == clears
