"""Which name means which model."""

from __future__ import annotations

from pathlib import Path

from local_llm.catalog.card import BrokenModel, Engine, Kind, ModelCard
from local_llm.catalog.names import Naming, name_models


def _card(model_id: str, path: str = "") -> ModelCard:
    return ModelCard(model_id, Path(path or model_id), Kind.CHAT, Engine.VLLM, ("because",))


def _broken(model_id: str, path: str = "") -> BrokenModel:
    return BrokenModel(model_id, Path(path or model_id), "a shard is missing")


def _ids(naming: Naming) -> dict[str, str]:
    return {name: each.id for name, each in naming.names.items()}


def test_short_names_while_unambiguous() -> None:
    """The last part alone works for one model, not for two."""
    naming = name_models([_card("a/one"), _card("a/two"), _card("b/two")], {})
    assert _ids(naming) == {"a/one": "a/one", "one": "a/one", "a/two": "a/two", "b/two": "b/two"}
    assert [card.aliases for card in naming.models] == [("one",), (), ()]


def test_an_id_beats_a_short_name() -> None:
    """A plain folder's own name is not taken from it."""
    naming = name_models([_card("a/one"), _card("one")], {})
    assert _ids(naming)["one"] == "one"
    assert naming.models[0].aliases == ()


def test_a_worker_knows_its_short_name_before_it_is_an_alias() -> None:
    """It becomes one while the worker runs, when the folder that made it ambiguous goes."""
    both = name_models([_card("a/one"), _card("b/one")], {})
    left = name_models([_card("a/one")], {})
    assert both.models[0].aliases == ()
    assert both.models[0].served_names == left.models[0].served_names == ("a/one", "one")


def test_a_broken_model_takes_no_short_name_from_one_that_works() -> None:
    """A download into another organisation does not stop a name from working."""
    naming = name_models([_broken("a/one"), _card("b/one"), _broken("c/two")], {})
    assert _ids(naming)["one"] == "b/one"
    assert _ids(naming)["two"] == "c/two"


def test_aliases_from_the_settings() -> None:
    """An alias names an id or a short name and beats a short name; the card lists all, sorted."""
    naming = name_models([_card("a/one"), _card("b/two")], {"gpt-4": "a/one", "two": "a/one", "x": "one"})
    assert naming.models[0].aliases == ("gpt-4", "one", "two", "x")
    assert naming.models[0].served_names == ("a/one", "gpt-4", "one", "two", "x")
    assert naming.models[1].aliases == ()
    assert naming.warnings == ()


def test_aliases_that_mean_nothing_are_warned_of() -> None:
    """An unknown target, or an alias that is somebody's id, is left out and said."""
    naming = name_models([_card("one"), _card("two")], {"one": "two", "gpt": "nothing"})
    assert _ids(naming) == {"one": "one", "two": "two"}
    assert naming.warnings == (
        "alias 'one' is left out: a model has that id",
        "alias 'gpt' is left out: there is no model 'nothing'",
    )


def test_an_alias_of_a_broken_model_leads_to_its_reason() -> None:
    """Broken is not unknown."""
    naming = name_models([_broken("one")], {"gpt": "one"})
    assert naming.names["gpt"] == naming.broken[0]
    assert naming.warnings == ()


def test_of_two_with_the_same_id_the_whole_one_is_served() -> None:
    """An interrupted copy does not hide a whole one, and a whole copy is listed as hidden."""
    naming = name_models([_broken("a/m", "1"), _card("a/m", "2"), _card("a/m", "3")], {})
    assert [card.path for card in naming.models] == [Path("2")]
    assert [(each.path.name, each.reason) for each in naming.broken] == [
        ("1", "a shard is missing"),
        ("3", "another folder has the same id and is served"),
    ]
