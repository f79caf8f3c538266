"""Fit before evict: what can never be loaded costs nobody else their model."""

from __future__ import annotations

from pathlib import Path

from tests.fake_engine import write_fake_model
from tests.supervisor.server.stage import CHAT, asking, engine_processes, running

TOO_LARGE_BYTES = 1 << 50


def test_what_can_never_fit_is_refused_and_the_working_model_stays(tmp_path: Path) -> None:
    """400 with the numbers, at once; `fit: off` lets it be tried."""
    write_fake_model(tmp_path / "models", "works")
    for name in ("too_large", "trusted"):
        write_fake_model(tmp_path / "models", name)
    too_large = {"memory_bytes": TOO_LARGE_BYTES}
    models = {"too_large": too_large, "trusted": {**too_large, "fit": "off"}}
    with running(tmp_path, models=models) as served, served.client() as client:
        assert client.post(CHAT, json=asking("works")).status_code == 200
        before = {process.pid for process in engine_processes(served)}
        refused = client.post(CHAT, json=asking("too_large"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "model_does_not_fit")
        assert "1048576.0 GiB" in refused.json()["error"]["message"]
        assert client.post("/admin/load", json={"model": "too_large"}).status_code == 400
        assert {process.pid for process in engine_processes(served)} == before
        assert client.post(CHAT, json=asking("trusted")).headers["x-fake-model"] == "trusted"
