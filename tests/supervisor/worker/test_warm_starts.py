"""Which workers come from a warm template: by what they are started with, and by what went wrong before."""

from __future__ import annotations

import logging
from pathlib import Path

import anyio
import pytest

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.errors import LoadFailed, WarmStartFailed
from local_llm.settings import ModelSettings
from local_llm.worker.launcher import Launcher
from local_llm.worker.worker import Worker
from tests.supervisor.worker.stage import fake_card, tree, until
from tests.supervisor.worker.warm_stage import (
    is_warm,
    kill,
    ready_template,
    serves,
    templates,
    the_template,
    warm_settings,
)

COLD_FROM_NOW_ON = "org/a starts cold from now on"


async def started(launcher: Launcher, card: ModelCard) -> Worker:
    """A new worker that is ready and answers."""
    worker = launcher.worker(card)
    with anyio.fail_after(60):
        await worker.start()
    assert await serves(worker)
    return worker


async def failure_of(launcher: Launcher, card: ModelCard) -> tuple[LoadFailed, bool]:
    """The error of a new worker's start, and whether it was a warm one."""
    worker = launcher.worker(card)
    with pytest.raises(LoadFailed) as failure, anyio.fail_after(60):
        await worker.start()
    return failure.value, is_warm(worker)


@pytest.mark.parametrize("first", ["args", "env"])
async def test_only_the_environment_makes_a_difference(tmp_path: Path, first: str) -> None:
    """A model with variables of its own starts cold, even if it comes first; its arguments are no matter."""
    models = {
        "env": ModelSettings(env={"MALLOC_ARENA_MAX": "1"}),
        "args": ModelSettings(args=["--chunks", "3"]),
        "own": ModelSettings(env={"TMPDIR": str(tmp_path)}),
    }
    async with Launcher(warm_settings(tmp_path, models=models)) as launcher:
        warm = {}
        for name in (first, *(each for each in models if each != first)):
            warm[name] = is_warm(await started(launcher, fake_card(tmp_path, name)))
        assert warm == {"env": False, "args": True, "own": True}
        assert len(templates()) == 1


async def test_a_temporary_folder_for_the_engine(tmp_path: Path) -> None:
    """What every worker has of its own makes no difference either where the settings say it of the engine."""
    settings = warm_settings(tmp_path, env={"TMPDIR": str(tmp_path)})
    async with Launcher(settings) as launcher:
        card = fake_card(tmp_path)
        await launcher.templates.prepare([card])
        assert is_warm(await started(launcher, card))


async def test_bad_template_is_told_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What fails warm and starts cold: the first start says which, and all later ones are cold at once."""
    card = fake_card(tmp_path)
    async with Launcher(warm_settings(tmp_path, "bad")) as launcher:
        error, warm = await failure_of(launcher, card)
        assert isinstance(error, WarmStartFailed)
        assert "ended with exit code 7" in error.message
        assert warm
        for _ in range(2):
            assert not is_warm(await started(launcher, card))
        warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
        assert [each for each in warnings if COLD_FROM_NOW_ON in each] == warnings[:1]
        assert len(warnings) == 1
        error, _ = await failure_of(launcher, fake_card(tmp_path, "org/b"))
        assert isinstance(error, WarmStartFailed)


async def test_failing_both_ways_is_the_models_fault(tmp_path: Path) -> None:
    """The ordinary error, and the next start is a warm one again."""
    card = fake_card(tmp_path, die_at_start=3)
    async with Launcher(warm_settings(tmp_path)) as launcher:
        outcomes = [await failure_of(launcher, card) for _ in range(3)]
    assert [type(error) for error, _ in outcomes] == [WarmStartFailed, LoadFailed, WarmStartFailed]
    assert [warm for _, warm in outcomes] == [True, False, True]


async def test_a_usual_cause_is_not_the_templates_fault(tmp_path: Path) -> None:
    """It would be the same cold: the ordinary error at once."""
    card = fake_card(tmp_path, die_at_start=3, say="CUDA out of memory")
    async with Launcher(warm_settings(tmp_path)) as launcher:
        outcomes = [await failure_of(launcher, card) for _ in range(2)]
    assert [type(error) for error, _ in outcomes] == [LoadFailed, LoadFailed]
    assert [warm for _, warm in outcomes] == [True, True]


async def test_a_kill_is_not_the_templates_fault(tmp_path: Path) -> None:
    """SIGKILL comes from somebody else: the ordinary error, and the next start is warm."""
    async with Launcher(warm_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, never_ready=True))
        errors: list[LoadFailed] = []

        async def start() -> None:
            try:
                await worker.start()
            except LoadFailed as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            await until(lambda: is_warm(worker))
            await kill(tree(worker)[1])
        assert [type(error) for error in errors] == [LoadFailed]
        assert is_warm(await started(launcher, fake_card(tmp_path, "org/b")))


async def test_prepared_in_turn(tmp_path: Path) -> None:
    """vLLM's first, whatever the order of the models, then the other, even if the first one fails."""
    cards = [
        ModelCard("e", tmp_path, Kind.EMBEDDING, Engine.TRANSFORMERS, ()),
        ModelCard("b", tmp_path, Kind.CHAT, Engine.VLLM, (), architecture="LlamaForCausalLM"),
        ModelCard("c", tmp_path, Kind.CHAT, Engine.VLLM, (), architecture="GemmaForCausalLM"),
        ModelCard("d", tmp_path, Kind.CHAT, Engine.VLLM, (), architecture="LlamaForCausalLM"),
    ]
    async with Launcher(warm_settings(tmp_path, "endless")) as launcher, anyio.create_task_group() as tasks:
        tasks.start_soon(launcher.templates.prepare, cards)
        first = await the_template()
        assert list(launcher.templates.all) == [Engine.VLLM]
        assert first.cmdline()[-3:] == ["--architectures", "GemmaForCausalLM", "LlamaForCausalLM"]
        first.kill()
        second = await ready_template(launcher, Engine.TRANSFORMERS)
        assert second.cmdline()[-1] == "--architectures"
        assert list(launcher.templates.all) == [Engine.TRANSFORMERS]


async def test_a_start_ahead_of_the_preparation(tmp_path: Path) -> None:
    """It makes the template that the preparation would have made: with the classes of all models."""
    card = fake_card(tmp_path, kind="embedding")
    others = [
        ModelCard("b", tmp_path, Kind.CHAT, Engine.VLLM, ()),
        ModelCard("c", tmp_path, Kind.EMBEDDING, Engine.TRANSFORMERS, (), architecture="BertModel"),
    ]
    async with Launcher(warm_settings(tmp_path, "endless")) as launcher, anyio.create_task_group() as tasks:
        tasks.start_soon(launcher.templates.prepare, [card, *others])
        await the_template()
        assert is_warm(await started(launcher, card))
        template = next(each for each in templates() if "transformers" in each.cmdline())
        assert template.cmdline()[-2:] == ["--architectures", "BertModel"]
        tasks.cancel_scope.cancel()


async def test_only_engines_that_have_models(tmp_path: Path) -> None:
    """Nobody needs the others."""
    async with Launcher(warm_settings(tmp_path)) as launcher:
        await launcher.templates.prepare([])
        assert templates() == []
        await launcher.templates.prepare([ModelCard("e", tmp_path, Kind.RERANKER, Engine.TRANSFORMERS, ())])
        assert list(launcher.templates.all) == [Engine.TRANSFORMERS]
        assert len(templates()) == 1


async def test_a_killed_nanny_is_no_fault_of_the_template(tmp_path: Path) -> None:
    """Its worker dies with it while it loads: the next one is warm again."""
    async with Launcher(warm_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, slow_start=600))
        async with anyio.create_task_group() as tasks:

            async def load() -> None:
                with pytest.raises(LoadFailed) as failure:
                    await worker.start()
                assert not isinstance(failure.value, WarmStartFailed)

            tasks.start_soon(load)
            await until(lambda: worker.phase.value == "loading")
            await kill(tree(worker)[0])
        assert is_warm(await started(launcher, fake_card(tmp_path, "org/b")))
