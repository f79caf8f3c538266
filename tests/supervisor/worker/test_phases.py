"""The table of transitions and its one mutator."""

from __future__ import annotations

import logging

import pytest

from local_llm.worker.phases import LEGAL, Lifecycle, Phase
from tests.supervisor.worker.stage import fake_identity

ROADS = {
    Phase.LAUNCHING: [],
    Phase.LOADING: [Phase.LOADING],
    Phase.READY: [Phase.LOADING, Phase.READY],
    Phase.STOPPING: [Phase.STOPPING],
    Phase.GONE: [Phase.GONE],
}


@pytest.mark.parametrize("start", Phase)
@pytest.mark.parametrize("end", Phase)
def test_only_the_table(start: Phase, end: Phase, caplog: pytest.LogCaptureFixture) -> None:
    """Every pair of phases is either in the table, and logged with its reason, or refused."""
    life = Lifecycle(fake_identity("w1", "org/a"))
    for step in ROADS[start]:
        life.enter(step, "on the way")
    caplog.set_level(logging.INFO)
    if end in LEGAL[start]:
        life.enter(end, "because")
        assert life.phase is end
        fields = caplog.records[-1].__dict__["fields"]
        assert 0 <= fields.pop("seconds") < 10
        told = {"worker": "w1", "model": "org/a", "from": start.value, "to": end.value, "reason": "because"}
        assert fields == told
    else:
        with pytest.raises(ValueError, match=f"{start.value} -> {end.value}"):
            life.enter(end, "because")
        assert life.phase is start


def test_every_phase_leads_to_gone() -> None:
    """No life gets stuck: from each phase the end can be reached."""
    reach = {Phase.GONE}
    for _ in Phase:
        reach |= {phase for phase in Phase if LEGAL[phase] & reach}
    assert reach == set(Phase)
