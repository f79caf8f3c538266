"""`python -m tests.image`: lint, build, story, figures. With `--gpu` all of it on the GPU of this machine."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.image.build import build, copy_checkout, make_wheels_image
from tests.image.engine import PROJECT, Compose, Failed, expect
from tests.image.gpu import show_gpu
from tests.image.lint import ROOT, lint, lint_by_compose
from tests.image.machine import has_engine, run_with_engine, unpacked_engine, work_folder
from tests.image.story import tell

DEMO_MODELS = ROOT / "models"
TOOLS = ROOT / ".cache" / "image-tools" / "bin"


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.image", description=__doc__)
    parser.add_argument("--gpu", action="store_true", help="NVIDIA's base image and this machine's GPU")
    parser.add_argument("--phase", choices=["build", "story"], help="one phase in --work: for itself only")
    parser.add_argument("--work", type=Path, help="the folder of the phases")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if options.phase:
            _phase(options.phase, options.work, gpu=options.gpu)
        else:
            _everything(gpu=options.gpu)
    except Failed as failure:
        print(f"\nFAILED: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if not options.phase:
            print("\ninterrupted; everything is undone", file=sys.stderr)
        return 130
    return 0


def _everything(*, gpu: bool) -> None:
    started = time.monotonic()
    expect(
        (DEMO_MODELS / "MiniLM-reranker-demo").exists(), "models/ lacks the demo models: run `make models`"
    )
    print("== lint", flush=True)
    lint(TOOLS)
    with work_folder() as work:
        copy_checkout(work / "checkout")
        shutil.copytree(DEMO_MODELS, work / "models", ignore=shutil.ignore_patterns(".*"))
        if has_engine():
            print("== this machine's Docker Engine", flush=True)
            _write_settings(work, {}, gpu=gpu)
            _both_phases(work, gpu=gpu)
        else:
            expect(not gpu, "the check on a GPU needs a Docker Engine with NVIDIA's container toolkit")
            print("== a Docker Engine unpacked for this run, and its base image (a minute)", flush=True)
            _with_unpacked_engine(work)
        _report(work, time.monotonic() - started)


def _both_phases(work: Path, *, gpu: bool) -> None:
    try:
        _phase("build", work, gpu=gpu)
        _phase("story", work, gpu=gpu)
    finally:
        _compose(work, gpu=gpu).remove()


def _with_unpacked_engine(work: Path) -> None:
    wheels = _local_wheels()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"  # wheels of this machine are for its own
    settings = {"BASE_IMAGE": "localhost/ci-base:latest", "BUILD_NETWORK": "host", "PYTHON": "3.11"}
    settings["CLIENT_BASE_IMAGE"] = settings["BASE_IMAGE"]
    if wheels is not None:
        settings |= {"WHEELS_IMAGE": f"localhost/{PROJECT}-wheels", "WHEELS": str(wheels), "PYTHON": python}
    _write_settings(work, settings, gpu=False)
    phases = (sys.executable, "-m", "tests.image", "--work", str(work), "--phase")
    with unpacked_engine():
        run_with_engine(work / "engine", "build", *phases, "build")
        run_with_engine(work / "engine", "run", *phases, "story")


def _local_wheels() -> Path | None:
    """The folder of this machine's own wheels, if pip knows one and it has a torch."""
    asked = (sys.executable, "-m", "pip", "config", "get", "global.find-links")
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    folders = (told.stdout.strip() or os.environ.get("PIP_FIND_LINKS", "")).split()
    return next((Path(each) for each in folders if list(Path(each).glob("torch-*.whl"))), None)


def _phase(name: str, work: Path, *, gpu: bool) -> None:
    compose, figures = _compose(work, gpu=gpu), _figures(work)
    print(f"== {name}", flush=True)
    if name == "build":
        lint_by_compose(compose.checkout)
        if "WHEELS" in compose.settings:
            make_wheels_image(compose.settings["WHEELS_IMAGE"], Path(compose.settings["WHEELS"]), work)
        build(compose, figures)
    else:
        _tell(compose, work / "models", figures)
    (work / "figures.json").write_text(json.dumps(figures))


def _tell(compose: Compose, models: Path, figures: dict[str, float]) -> None:
    try:
        if compose.gpu:
            show_gpu(compose)
        tell(compose, models, figures)
    except Failed:
        print("\n-- the service's last lines:\n", compose("logs", "--tail", "40", check=False))
        raise
    finally:
        compose("--profile", "client", "down", "--volumes", "--timeout", "5", check=False)


def _write_settings(work: Path, settings: dict[str, str], *, gpu: bool) -> None:
    defaults = {
        "IMAGE": f"localhost/{PROJECT}:{'gpu' if gpu else 'cpu'}",
        "CLIENT_IMAGE": f"localhost/{PROJECT}-client",
        "WHEELS_IMAGE": "scratch",
        "MODELS_DIR": str(work / "models"),
        "MEMORY_LIMIT": "32g" if gpu else "8g",
        "PORT": "0",
    }
    (work / "settings.json").write_text(json.dumps({**defaults, **settings}))


def _compose(work: Path, *, gpu: bool) -> Compose:
    return Compose(work / "checkout", json.loads((work / "settings.json").read_text()), gpu=gpu)


def _figures(work: Path) -> dict[str, float]:
    file = work / "figures.json"
    figures: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    return figures


def _report(work: Path, seconds: float) -> None:
    print("== figures", flush=True)
    for what, figure in _figures(work).items():
        print(f"   {what}: {figure:.2f}{'' if ',' in what and 'GB' in what else ' s'}")
    print(f"   all of it: {seconds:.0f} s", flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
