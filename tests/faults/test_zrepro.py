from tests.faults.test_lifecycle_machine import LifeOfAJob


def test_repro(unhurried):
    for frame in ("url", "upload"):
        state = LifeOfAJob()
        state.begin(
            layout="one path",
            store="none",
            is_conditional=False,
            frame=frame,
            arguments={"api_version": "v1", "on_unknown_submit": "fail", "deferrable": False},
            v1_reply="nameless",
            lag=0,
        )
        state.attempt_in_an_outage(failure="refused", index=0, plan={}, seam="credits")
        state.attempt_that_is_overtaken(
            index=0, meanwhile={}, plan={}, step="credits", who="the other runs before"
        )
        state.teardown()
