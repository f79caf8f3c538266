"""LoRA adapters: which base is meant, what vLLM would refuse, and what changes with their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from local_llm.catalog import adapters, files
from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.catalog.catalog import Catalog
from local_llm.errors import ModelBroken
from local_llm.settings import Settings
from tests.supervisor.catalog.adapters import MODULE, adapter, safetensors
from tests.supervisor.catalog.folders import LLAMA, chat_model, embedding_model, hub_snapshot, write


def _models(models_dir: Path, **settings: Any) -> dict[str, ModelCard]:
    catalog = Catalog(Settings(models_dir=models_dir, **settings))
    return {card.id: card for card in catalog.snapshot().models}


def _reasons(models_dir: Path, **settings: Any) -> dict[str, str]:
    snapshot = Catalog(Settings(models_dir=models_dir, **settings)).snapshot()
    return {each.id: each.reason for each in snapshot.broken}


def test_an_adapter_is_a_model_of_its_own(tmp_path: Path) -> None:
    """Kind, engine and context are its base's; the base knows it by all of its names."""
    chat_model(tmp_path / "org" / "base")
    folder = adapter(tmp_path / "me" / "poet", "org/base", rank=8)
    models = _models(tmp_path, aliases={"bard": "me/poet"})
    poet, base = models["me/poet"], models["org/base"]
    assert (poet.kind, poet.engine, poet.context_length) == (Kind.CHAT, Engine.VLLM, 4096)
    assert poet.aliases == ("bard", "poet")
    assert poet.evidence == ("adapter_config.json: LoRA of org/base, rank 8",)
    assert poet.runs_as is poet.base
    assert poet.base == base
    (known,) = base.adapters
    assert (known.names, known.path, known.rank) == (("me/poet", "bard", "poet"), folder, 8)


@pytest.mark.parametrize(
    "wanted",
    [
        "org/base",
        "base",
        "the-alias",
        "other-org/base",
        "Org/BASE",
        "Other-Org/BASE",
        "The-Alias",
        "./models/base",
        "/home/somebody/models/base/",
        "{models}/org/base",
        "/root/.cache/huggingface/hub/models--org--base/snapshots/0123456789abcdef",
    ],
)
def test_the_base_is_found(tmp_path: Path, wanted: str) -> None:
    """By id, alias, the last part of it, in whatever case, or by a path on this or another machine."""
    chat_model(tmp_path / "org" / "base")
    chat_model(tmp_path / "org" / "other")
    adapter(tmp_path / "poet", wanted.format(models=tmp_path))
    base = _models(tmp_path, aliases={"the-alias": "org/base"})["poet"].base
    assert base is not None
    assert base.id == "org/base"


def test_a_base_and_adapters_of_the_hub(tmp_path: Path) -> None:
    """In the Hugging Face cache's layout both are found."""
    files = {"config.json": LLAMA, "tokenizer_config.json": {}, "model.safetensors": b"w"}
    hub_snapshot(tmp_path, "org/base", "aaa", files, main=True)
    made = adapter(tmp_path / "made", "org/base")
    content = {each.name: each.read_bytes() for each in made.iterdir()}
    hub_snapshot(tmp_path, "me/poet", "bbb", content, main=True)
    assert {each.names[0] for each in _models(tmp_path)["org/base"].adapters} == {"made", "me/poet"}


def test_without_a_base(tmp_path: Path) -> None:
    """The reason names what it wants, and what can be done."""
    adapter(tmp_path / "poet", "meta-llama/Llama-3.1-8B")
    assert _reasons(tmp_path)["poet"] == (
        "its base meta-llama/Llama-3.1-8B is not in the folder: download it, or if it is there under another "
        "id, give that one the alias meta-llama/Llama-3.1-8B in the settings"
    )


def test_several_bases(tmp_path: Path) -> None:
    """Of two with that last part none is guessed."""
    chat_model(tmp_path / "a" / "base")
    chat_model(tmp_path / "b" / "base")
    adapter(tmp_path / "poet", "c/base")
    assert _reasons(tmp_path)["poet"].startswith("its base c/base could be a/base, b/base: give one of them")
    assert _models(tmp_path, aliases={"c/base": "b/base"})["poet"].runs_as.id == "b/base"


def test_bases_that_differ_in_case(tmp_path: Path) -> None:
    """The very name is taken first; of two that are alike but for case none is guessed."""
    chat_model(tmp_path / "a" / "Base")
    chat_model(tmp_path / "b" / "base")
    for name, wanted in {"exact": "c/Base", "organisation": "B/BASE", "unclear": "c/BASE"}.items():
        adapter(tmp_path / name, wanted)
    models = _models(tmp_path)
    assert (models["exact"].runs_as.id, models["organisation"].runs_as.id) == ("a/Base", "b/base")
    assert _reasons(tmp_path)["unclear"].startswith("its base c/BASE could be a/Base, b/base: give one of")


def test_a_base_in_another_case_that_is_broken(tmp_path: Path) -> None:
    """Its own reason is told, not that it is absent."""
    write(tmp_path / "org" / "Base", {"config.json": LLAMA})
    adapter(tmp_path / "poet", "org/base")
    assert _reasons(tmp_path)["poet"].startswith("its base 'org/Base' cannot be served: it has no weight")


def test_a_base_behind_a_link(tmp_path: Path) -> None:
    """A path means the folder that it leads to, whatever its last part; one that leads nowhere, nothing."""
    models_dir = tmp_path / "models"
    (tmp_path / "link").symlink_to(chat_model(models_dir / "base"))
    adapter(models_dir / "poet", str(tmp_path / "link"))
    adapter(models_dir / "lost", str(tmp_path / "nowhere"))
    assert _models(models_dir)["poet"].runs_as.id == "base"
    assert _reasons(models_dir)["lost"].startswith(f"its base {tmp_path}/nowhere is not in the folder")


def test_bases_that_take_none(tmp_path: Path) -> None:
    """Embedding models, adapters, broken models, and what another engine runs."""
    embedding_model(tmp_path / "embedder")
    write(tmp_path / "broken", {"config.json": LLAMA})
    chat_model(tmp_path / "base")
    chat_model(tmp_path / "elsewhere")
    for name in ("embedder", "broken", "base", "of-base", "elsewhere"):
        adapter(tmp_path / f"of-{name}", name)
    reasons = _reasons(tmp_path, models={"elsewhere": {"engine": "transformers"}})
    assert reasons["of-embedder"].startswith("its base 'embedder' is of kind embedding")
    assert reasons["of-broken"].startswith("its base 'broken' cannot be served: it has no weight files")
    assert reasons["of-of-base"] == "its base of-base is an adapter itself"
    assert reasons["of-elsewhere"] == "its base 'elsewhere' is run by transformers; adapters need vLLM"
    assert "of-base" not in reasons


@pytest.mark.parametrize(
    ("args", "flag"),
    [
        (["--no-enable-lora"], "--no-enable-lora"),
        (["--enable-lora", "--no_enable_lora"], "--no-enable-lora"),
        (["--lora_modules=x=/x"], "--lora-modules"),
        (["--enable-lora", "--lora-modules", "x=/x"], "--lora-modules"),
    ],
)
def test_arguments_that_leave_no_place_for_it(tmp_path: Path, args: list[str], flag: str) -> None:
    """Its base's worker would not know it: it is broken, and the base goes on."""
    chat_model(tmp_path / "base")
    adapter(tmp_path / "poet", "base")
    reason = f"the settings' arguments for its base 'base' say {flag}"
    assert _reasons(tmp_path, models={"base": {"args": args}}) == {"poet": reason}
    assert _reasons(tmp_path, engines={"vllm": {"args": args}}) == {"poet": reason}
    assert _models(tmp_path, models={"base": {"args": args}})["base"].adapters == ()
    assert "poet" in _models(tmp_path, models={"poet": {"args": args}})


def test_a_configuration_file_that_leaves_no_place_for_it(tmp_path: Path) -> None:
    """vLLM's own, which the command line wins over."""
    models = tmp_path / "models"
    chat_model(models / "base")
    adapter(models / "poet", "base")
    (tmp_path / "vllm.yaml").write_text("no-enable-lora: true\n")
    args = ["--config", str(tmp_path / "vllm.yaml")]
    assert _reasons(models, models={"base": {"args": args}})["poet"].endswith("say --no-enable-lora")
    assert "poet" in _models(models, models={"base": {"args": [*args, "--enable-lora"]}})


def test_enabled_adapters_are_served(tmp_path: Path) -> None:
    """What the user says is what we say; a change of it holds at once."""
    chat_model(tmp_path / "base")
    adapter(tmp_path / "poet", "base")
    said = [{"base": {"args": [flag]}} for flag in ("--enable_lora", "--no-enable-lora")]
    enabled, not_enabled = (
        Settings.model_validate({"models_dir": tmp_path, "models": each}) for each in said
    )
    catalog = Catalog(enabled)
    assert catalog.find("poet").runs_as.adapters
    catalog.use(not_enabled)
    with pytest.raises(ModelBroken, match="say --no-enable-lora"):
        catalog.find("poet")
    catalog.use(enabled)
    assert catalog.find("poet").base == catalog.find("base")


_A = f"{MODULE}.lora_A.weight"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"peft_type": "IA3"}, "it is an adapter of type IA3; only LoRA is served"),
        ({"peft_type": ["LORA"]}, "it is an adapter of type ['LORA']"),
        ({"use_dora": True}, "it is a DoRA adapter"),
        ({"modules_to_save": ["lm_head"]}, "it replaces whole layers of its base (modules_to_save)"),
        ({"bias": "all"}, "it has biases (bias: all)"),
        ({"init_lora_weights": "pissa"}, "it was made with init_lora_weights=pissa"),
        ({"r": 0}, "the rank in adapter_config.json is 0"),
        ({"r": "16"}, "the rank in adapter_config.json is 16"),
        ({"r": 1024}, "its rank is 1024, and vLLM serves 512 at most"),
        ({"r": 8}, "its matrices have rank 16, and adapter_config.json says 8"),
        ({"rank_pattern": {"q_proj": 600}}, "its rank is 600"),
        ({"lora_alpha": None}, "adapter_config.json has no lora_alpha"),
        ({"target_modules": None}, "adapter_config.json has no target_modules"),
        ({"base_model_name_or_path": None}, "adapter_config.json does not name its base"),
    ],
)
def test_what_vllm_would_refuse(tmp_path: Path, more: Mapping[str, Any], reason: str) -> None:
    """Told here, since a worker given such an adapter does not start, and its base with it."""
    chat_model(tmp_path / "base")
    adapter(tmp_path / "poet", "base", files={}, **{"rank": 16, **more} if "r" not in more else more)
    assert _reasons(tmp_path)["poet"].startswith(reason)
    assert _models(tmp_path)["base"].adapters == ()


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (b"", "download incomplete or damaged: its weight file is cut off within its header"),
        (b"\x10\0\0\0\0\0\0\0{}", "download incomplete or damaged: its weight file is cut off"),
        (b"\xff" * 64, "download incomplete or damaged: its weight file is cut off within its header"),
        (b"\x02\0\0\0\0\0\0\0[]", "download incomplete or damaged: its weight file has a header that is no"),
        (b"\x02\0\0\0\0\0\0\0{}", "its weights hold no tensor"),
        (b"version https://git-lfs.github.com/spec/v1", "its weights are a Git LFS pointer"),
        (safetensors({_A: [16, 8]})[:-1], "download incomplete or damaged: its weight file has a "),
        (safetensors({_A: [32, 8]}), "its matrices have rank 32, and adapter_config.json says 16"),
        (
            safetensors({"base_model.model.lm_head.weight": [1, 1]}),
            "its weights hold base_model.model.lm_head",
        ),
        (
            safetensors({f"{MODULE}.lora_magnitude_vector": [1, 1]}),
            "its weights hold base_model.model.model.la",
        ),
    ],
)
def test_weights_that_are_none(tmp_path: Path, weights: bytes, reason: str) -> None:
    """Half a download, a pointer, or tensors that are no part of a plain LoRA."""
    chat_model(tmp_path / "base")
    adapter(tmp_path / "poet", "base", files={"adapter_model.safetensors": weights})
    assert _reasons(tmp_path)["poet"].startswith(reason)


def test_an_adapter_of_another_size(tmp_path: Path) -> None:
    """A base of the same name with other matrices: its worker would not start."""
    module = MODULE.removeprefix("base_model.model.")
    fitting, larger = ({f"{module}.weight": [8, width]} for width in (8, 16))
    chat_model(tmp_path / "base", **{"model.safetensors": safetensors(fitting)})
    adapter(tmp_path / "poet", "base")
    assert _models(tmp_path)["poet"].runs_as.id == "base"
    chat_model(tmp_path / "base", **{"model.safetensors": safetensors(larger)})
    assert _reasons(tmp_path)["poet"] == (
        f"it was made for another model than 'base': {module}.weight has shape [8, 16], and it fits [8, 8]"
    )


def test_a_base_that_vllm_runs_without_adapters(tmp_path: Path) -> None:
    """Given the flags for them it would not start."""
    falcon = {"architectures": ["FalconForCausalLM"]}
    chat_model(tmp_path / "base", **{"config.json": falcon})
    adapter(tmp_path / "poet", "base")
    assert _reasons(tmp_path)["poet"] == "vLLM serves no adapters for FalconForCausalLM, as 'base' is"


def test_pickled_and_missing_weights(tmp_path: Path) -> None:
    """Safetensors are needed."""
    chat_model(tmp_path / "base")
    pickled = adapter(tmp_path / "pickled", "base", files={"adapter_model.bin": b"pickle"})
    (pickled / "adapter_model.safetensors").unlink()
    missing = adapter(tmp_path / "missing", "base")
    (missing / "adapter_model.safetensors").unlink()
    assert _reasons(tmp_path) == {
        "pickled": "its weights are a Python pickle (adapter_model.bin); safetensors are needed",
        "missing": "download incomplete: adapter_model.safetensors is missing",
    }


def test_a_model_that_came_of_an_adapter(tmp_path: Path) -> None:
    """A merged model may still have adapter_config.json beside its own weights."""
    chat_model(adapter(tmp_path / "merged", "base"))
    merged = _models(tmp_path)["merged"]
    assert merged.base is None
    assert merged.weights == ("model.safetensors",)


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "pytorch_model-00001-of-00001.bin"])
def test_a_pickled_model_that_came_of_an_adapter(tmp_path: Path, weights: str) -> None:
    """It is told what any model is told whose weights are pickles, and served where they are allowed."""
    content = {"config.json": LLAMA, "tokenizer_config.json": {}, weights: b"pickle"}
    folder = adapter(tmp_path / "merged", "base", files=content)
    (folder / "adapter_model.safetensors").unlink()
    assert _reasons(tmp_path)["merged"].startswith(f"it has only pickled weights ({weights})")
    assert _models(tmp_path, models={"merged": {"allow_pickle": True}})["merged"].weights == (weights,)


def test_names_that_meet(tmp_path: Path) -> None:
    """An adapter's name is never among its base's: vLLM would not start."""
    chat_model(tmp_path / "org" / "same")
    adapter(tmp_path / "same", "org/same")
    adapter(tmp_path / "a" / "twin", "org/same")
    adapter(tmp_path / "b" / "twin", "org/same")
    models = _models(tmp_path)
    base = models["org/same"]
    assert base.served_names == ("org/same",)
    assert [each.names for each in base.adapters] == [("a/twin",), ("b/twin",), ("same",)]


def test_headers_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look after another folder came compares no adapter anew; after the base changed, each of them."""
    monkeypatch.setattr(files, "_RACY_NS", -1)
    for number in range(300):
        adapter(tmp_path / f"poet-{number}", "base")
    compared: list[str] = []
    monkeypatch.setattr(adapters, "misfit", lambda path, _: compared.append(path))
    catalog = Catalog(Settings(models_dir=tmp_path))
    for name, content, count in (("base", b"1", 300), ("another", b"1", 0), ("base", b"22", 300)):
        compared.clear()
        chat_model(tmp_path / name, **{"model.safetensors": content})
        assert len(catalog.find("base").adapters) == 300
        assert len(compared) == count


def test_changes_are_noticed(tmp_path: Path) -> None:
    """By the next request for any of them: an adapter trained anew in place, one added, one removed."""
    chat_model(tmp_path / "base")
    poet = adapter(tmp_path / "poet", "base")
    catalog = Catalog(Settings(models_dir=tmp_path))
    first = catalog.find("base")
    weights = safetensors(
        {_A: [16, 8], f"{MODULE}.lora_B.weight": [8, 16], f"{MODULE}2.lora_A.weight": [8, 8]}
    )
    (poet / "adapter_model.safetensors").write_bytes(weights)
    second = catalog.find("base")
    assert first.adapters[0].fingerprint != second.adapters[0].fingerprint
    adapter(tmp_path / "painter", "base")
    assert [each.names[0] for each in catalog.find("base").adapters] == ["painter", "poet"]
    assert catalog.find("painter").runs_as == catalog.find("poet").runs_as == catalog.find("base")
    (poet / "adapter_config.json").write_text("{")
    with pytest.raises(ModelBroken, match=r"adapter_config\.json is not valid JSON"):
        catalog.find("poet")
    assert [each.names[0] for each in catalog.find("base").adapters] == ["painter"]
