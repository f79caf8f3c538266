"""The container's files against their schemas and rules."""

from __future__ import annotations

from pathlib import Path

from tests.image.engine import call, step

ROOT = Path(__file__).parents[2]


def lint(tools: Path) -> None:
    """Everything that needs no engine.

    Args:
        tools: the folder of programs that requirements/image-tools.txt installs.
    """
    with step("Dockerfiles: hadolint"):
        call(tools / "hadolint", "Dockerfile", "deploy/client/Dockerfile", cwd=ROOT)
    with step("Compose files: the specification's schema"):
        schema = ("--builtin-schema", "vendor.compose-spec")
        call(tools / "check-jsonschema", *schema, "compose.yaml", "compose.gpu.yaml", cwd=ROOT)
    with step("deploy/kubernetes.yaml: Kubernetes' schema"):
        call(tools / "kubernetes-validate", "--strict", "deploy/kubernetes.yaml", cwd=ROOT)


def lint_by_compose(checkout: Path) -> None:
    """What Compose itself makes of its files, without a GPU and with one, and with every key set."""
    example = (checkout / ".env.example").read_text().splitlines()
    every_key = dict(
        line.removeprefix("#").split("=", 1) for line in example if "=" in line and line[1:2] != " "
    )
    with step("Compose files: docker compose config"):
        for files in (["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]):
            named = [part for file in files for part in ("-f", file)]
            command = ("docker", "compose", *named, "--profile", "client", "config", "--quiet")
            call(*command, cwd=checkout)
            call(*command, cwd=checkout, env=every_key)
