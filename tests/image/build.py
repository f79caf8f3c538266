"""The image: built cold, and built again after a change of code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.image.engine import Compose, call, expect, step

ROOT = Path(__file__).parents[2]
CODE_CHANGE_SECONDS = 30.0


def copy_checkout(target: Path) -> None:
    """What git would commit of the checkout: nothing else may be needed, and the test may change it."""
    listed = call("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT).stdout
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def make_wheels_image(image: str, folder: Path, work: Path) -> None:
    """An image of the machine's own wheels: with older engines the one way to a second build context."""
    dockerfile = work / "wheels.Dockerfile"
    dockerfile.write_text("FROM scratch\nCOPY torch-*.whl /\n")
    call("docker", "build", "--quiet", "--tag", image, "--file", dockerfile, folder)


def build(compose: Compose, figures: dict[str, float]) -> None:
    """Builds both images, then the service's again with one line of code changed."""
    with step("build, cold", figures):
        compose("build", "--no-cache", "local-llm")
    with step("build of the client", figures):
        compose("build", "client")
    module = compose.checkout / "supervisor" / "local_llm" / "__init__.py"
    module.write_text(module.read_text() + "\n# A change of code.\n")
    with step("build after a change of code", figures):
        compose("build", "local-llm")
    expect(
        figures["build after a change of code"] < CODE_CHANGE_SECONDS,
        f"a change of code takes longer than {CODE_CHANGE_SECONDS:.0f} s to build",
    )
    inspected = json.loads(call("docker", "image", "inspect", compose.settings["IMAGE"]).stdout)[0]
    figures["image, GB"] = inspected["Size"] / 1e9
    labels = inspected["Config"]["Labels"]
    expect(labels["org.opencontainers.image.title"] == "local-llm-interface", f"labels: {labels}")
