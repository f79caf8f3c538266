"""Measured switch costs: kept between runs, and never in anybody's way."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from local_llm.settings import Settings
from local_llm.switchboard.cost_file import FILE_NAME, LARGEST_FILE_BYTES, CostFile, state_folder
from local_llm.switchboard.events import Model
from local_llm.switchboard.history import REMEMBERED_MODELS as REMEMBERED_RECORDS
from local_llm.switchboard.history import History
from local_llm.switchboard.switch_costs import REMEMBERED_MODELS, SwitchCosts
from tests.fake_engine import write_fake_model
from tests.supervisor.server.stage import running, until


def cost_file(folder: Path) -> CostFile:
    return CostFile(Settings(state_dir=folder), {})


def test_costs_outlive_the_server(tmp_path: Path) -> None:
    """Written after a switch, read at the start, known by id."""
    write_fake_model(tmp_path / "models", "org/a")
    file = tmp_path / "state" / FILE_NAME
    with running(tmp_path) as served, served.client() as client:
        client.post("/admin/load", json={"model": "org/a"}).raise_for_status()
        until(file.exists)
    measured = json.loads(file.read_text())["switch_seconds"]
    assert list(measured) == ["org/a"]
    with running(tmp_path) as served, served.client() as client:
        (model,) = client.get("/admin/status").json()["models"].items()
    assert model[0] == "org/a"
    assert (model[1]["switch_seconds"], model[1]["starts"]) == (measured["org/a"], 0)


def test_a_server_that_cannot_keep_them_serves_all_the_same(tmp_path: Path) -> None:
    """One warning, whatever is in the way."""
    write_fake_model(tmp_path / "models", "a")
    write_fake_model(tmp_path / "models", "b")
    (tmp_path / "state").write_text("a file where the folder should be")
    with running(tmp_path) as served, served.client() as client:
        for model in ("a", "b", "a"):
            assert client.post("/admin/load", json={"model": model}).status_code == 200
    warnings = [line for line in served.log if "state_dir" in line["message"]]
    assert len(warnings) == 1


def test_written_and_read(tmp_path: Path) -> None:
    """In their order; the folder is made; nothing else stays in it."""
    folder = tmp_path / "deep" / "below"
    cost_file(folder).write(SwitchCosts({"b": 2.0, "org/ä": 1.23456}))
    assert list(cost_file(folder).read().seconds.items()) == [("b", 2.0), ("org/ä", 1.235)]
    assert [each.name for each in folder.iterdir()] == [FILE_NAME]


def test_no_file_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As at the first start."""
    assert cost_file(tmp_path / "nowhere").read() == SwitchCosts()
    assert caplog.records == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b"[]",
        b"{}",
        b'{"switch_seconds": [1]}',
        b'{"switch_seconds": {"a": "1"}}',
        b'{"switch_seconds": {"a": null}}',
        b'{"switch_seconds": {"a": -1}}',
        b'{"switch_seconds": {"a": NaN}}',
        b'{"switch_seconds": {"a": 1e999}}',
        b'{"switch_seconds": {"\xff": 1}}',
        b'{"switch_seconds": {"a": 1}}' + b" " * LARGEST_FILE_BYTES + b"x",
        b'{"switch_seconds": {"a": 1}, "more": ' + b"[" * 100_000,
    ],
)
def test_a_damaged_file(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Is as good as none, is said once, and is replaced with the next measurement."""
    (tmp_path / FILE_NAME).write_bytes(content)
    file = cost_file(tmp_path)
    if file.read() != SwitchCosts({"a": 1.0}):  # too long is read as far as it is allowed to be
        assert file.read() == SwitchCosts()
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
    file.write(SwitchCosts({"a": 3.0}))
    assert cost_file(tmp_path).read() == SwitchCosts({"a": 3.0})


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One warning for all attempts, read and write."""
    (tmp_path / FILE_NAME).mkdir()
    file = cost_file(tmp_path)
    assert file.read() == SwitchCosts()
    file.write(SwitchCosts({"a": 3.0}))
    file.write(SwitchCosts({"a": 4.0}))
    assert len(caplog.records) == 1
    assert "state_dir" in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    ("state_dir", "environment", "expected"),
    [
        (Path("/chosen"), {"XDG_STATE_HOME": "/xdg"}, "/chosen"),
        (Path("~/mine"), {}, "HOME/mine"),
        (None, {"XDG_STATE_HOME": "/xdg"}, "/xdg/local-llm"),
        (None, {"XDG_STATE_HOME": "relative"}, "HOME/.local/state/local-llm"),
        (None, {"XDG_STATE_HOME": ""}, "HOME/.local/state/local-llm"),
        (None, {}, "HOME/.local/state/local-llm"),
    ],
)
def test_where_they_are_kept(
    monkeypatch: pytest.MonkeyPatch, state_dir: Path | None, environment: dict[str, str], expected: str
) -> None:
    """Where the settings say, else where the XDG standard does."""
    monkeypatch.setenv("HOME", "/home/somebody")
    found = state_folder(Settings(state_dir=state_dir), environment)
    assert found == Path(expected.replace("HOME", "/home/somebody"))


def test_nobody_has_a_home(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """In a container under a user id without a name: one warning."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    file = CostFile(Settings(), {})
    assert file.read() == SwitchCosts()
    file.write(SwitchCosts({"a": 1.0}))
    assert len(caplog.records) == 1


def test_those_measured_longest_ago_are_forgotten() -> None:
    """So that neither memory nor the file grows without an end."""
    costs = SwitchCosts()
    for number in range(REMEMBERED_MODELS):
        costs.measured(Model(str(number), str(number)), 1.0)
    costs.measured(Model("0", "0"), 2.0)
    costs.measured(Model("new", "new"), 3.0)
    assert len(costs.seconds) == REMEMBERED_MODELS
    assert "1" not in costs.seconds
    assert costs.seconds["0"] == pytest.approx(1.3)
    assert list(costs.seconds)[-2:] == ["0", "new"]


def test_histories_of_models_that_come_and_go() -> None:
    """Are forgotten, too."""
    history = History()
    for number in range(REMEMBERED_RECORDS + 1):
        history.started(str(number))
    history.failed("5", "out of memory", at=7.0)
    history.started("5")
    assert len(history.records) == REMEMBERED_RECORDS
    assert "0" not in history.records
    record = history.records["5"]
    assert (record.starts, record.failures, record.last_error, record.last_error_at) == (
        2,
        1,
        "out of memory",
        7,
    )
