"""The transformers worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from local_llm_worker.pooling.program import library_environment
from local_llm_worker.pooling.threads import usable_cores
from local_llm_worker.template.errors import Unfit
from local_llm_worker.template.importing import import_all

_MODULES = (
    "local_llm_worker.pooling.loading",
    "local_llm_worker.pooling.endpoints",
    "local_llm_worker.pooling.server",
    "sentence_transformers.sentence_transformer.modules",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
)


class PoolingEngine:
    """Embedding models and rerankers.

    Args:
        architectures: model classes to import, as config.json names them.
    """

    def __init__(self, architectures: Sequence[str]) -> None:
        self._architectures = architectures

    def library_environment(self) -> dict[str, str]:
        """What the worker's program else sets before it imports its libraries."""
        return library_environment(usable_cores())

    def preload(self) -> Iterator[str]:
        """Imports the libraries and the model classes; yields what was not there.

        Raises:
            Unfit: the libraries are not installed.
        """
        missing = list(import_all(_MODULES))
        if _MODULES[0] in missing:
            raise Unfit("the transformers engine cannot be imported")
        yield from missing
        import transformers

        for name in self._architectures:
            if getattr(transformers, name, None) is None:
                yield name

    def set_right(self) -> None:
        """Nothing: the program sets its number of threads itself."""
