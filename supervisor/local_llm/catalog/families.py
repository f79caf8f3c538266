"""Which family a model belongs to, and so which flags vLLM needs for it. The rules are data: `families.json`.

Pure but for reading that file, once, when the first model is looked at.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from local_llm.catalog.card import Family
from local_llm.catalog.chat_templates import Thinks, plain, thinks
from local_llm.catalog.families_file import Condition, Entry, FamiliesFile, Markers, read_families

_BUILT_IN = Path(__file__).with_name("families.json")

# A base model was not taught to think, even where it was published with the template of its chat model.
_BASE = re.compile(r"(?<![a-z])base(?![a-z])", re.IGNORECASE)

_MOST_ARCHITECTURES = 1000
_THINK_ONLY_IF_ASKED = ("--default-chat-template-kwargs", '{"enable_thinking": false}')


@dataclass(frozen=True, slots=True)
class FamilySigns:
    """What was seen of a model that can tell its family.

    Attributes:
        name: the last part of the model's id.
        architecture: ``architectures[0]`` of config.json.
        model_type: of config.json.
        templates: the texts of its chat templates.
        response_fields: see `chat_templates.FoundTemplates`.
        files: names in its folder.
        lacks: whether its tokenizer is known not to have one of some tokens; asked only where it matters.
    """

    name: str
    architecture: str | None = None
    model_type: str | None = None
    templates: tuple[str, ...] = ()
    response_fields: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    lacks: Callable[[Sequence[str]], bool] = field(default=lambda _tokens: False, compare=False, repr=False)


class Families:
    """All families that are known.

    Args:
        files: those of the first are tried first, and replace those of the same name in later ones.
    """

    def __init__(self, *files: FamiliesFile) -> None:
        self._entries: list[Entry] = []
        for file in files:
            known = {each.name for each in self._entries}
            self._entries += (each for each in file.families if each.name not in known)
        self._by_architecture: dict[str | None, list[Entry]] = {}
        # The first file's word counts, as it does for families.
        self._tool_tokens: dict[str, tuple[str, ...]] = {}
        self._reasoning_tokens: dict[str, tuple[str, ...]] = {}
        for file in reversed(files):
            self._tool_tokens |= file.needed_tokens.tool_call_parser
            self._reasoning_tokens |= file.needed_tokens.reasoning_parser
        self._opening = frozenset[str]().union(*(each.opening_reasoning_parsers for each in files))

    def __iter__(self) -> Iterator[Family]:
        """All of them as they are without evidence, in the order in which they are tried."""
        for each in self._entries:
            yield Family(each.name, each.tool_call_parser, each.reasoning_parser, each.args)

    def built_in_template(self, signs: FamilySigns) -> str | None:
        """Evidence that vLLM itself has the chat format of a model without a template; None if it has not."""
        for entry in self._candidates(signs.architecture):
            if entry.built_in_template and _why(entry, signs, Thinks.NEVER, "") is not None:
                return f"vLLM has the chat format of the family {entry.name} built in"
        return None

    def match(self, signs: FamilySigns) -> Family | None:
        """The family of a model that chats; None if nothing is certain."""
        templates = [plain(each) for each in signs.templates]
        text, said = "\n".join(templates), thinks(templates)
        for entry in self._candidates(signs.architecture):
            if not (text or entry.built_in_template):
                continue  # a base model: nothing tells how it would write a tool call
            why = _why(entry, signs, said, text)
            if why is not None:
                return self._family(entry, signs, said, text, why)
        return None

    def _candidates(self, architecture: str | None) -> list[Entry]:
        """Those that an architecture does not rule out; remembered, since a thousand models are looked at."""
        found = self._by_architecture.get(architecture)
        if found is None:
            found = [
                each for each in self._entries if not each.architectures or architecture in each.architectures
            ]
            if len(self._by_architecture) < _MOST_ARCHITECTURES:
                self._by_architecture[architecture] = found
        return found

    def _family(
        self, entry: Entry, signs: FamilySigns, said: Thinks, text: str, why: Sequence[str]
    ) -> Family:
        args = entry.args
        findings = list(why)
        tool_call_parser, reasoning_parser = entry.tool_call_parser, None
        also = _why(entry.reasoning_when, signs, said, text) if entry.reasoning_when else ()
        if also is not None and not _BASE.search(signs.name):
            reasoning_parser = entry.reasoning_parser
            findings += also if reasoning_parser else ()
        if _lacks(signs, self._tool_tokens, tool_call_parser):
            findings.append(f"the tokenizer lacks what the parser {tool_call_parser} needs")
            tool_call_parser = None
        if _lacks(signs, self._reasoning_tokens, reasoning_parser):
            findings.append(f"the tokenizer lacks what the parser {reasoning_parser} needs")
            reasoning_parser = None
        if reasoning_parser in self._opening and said is Thinks.OFF:
            # Told so, the parser takes plain answers for answers, and a request can still switch it on.
            args = (*args, *_THINK_ONLY_IF_ASKED)
            findings.append("it thinks only if the request asks for it")
        evidence = f"family {entry.name}: {'; '.join(dict.fromkeys(findings))}"
        return Family(entry.name, tool_call_parser, reasoning_parser, args, evidence)


def _lacks(signs: FamilySigns, needed: Mapping[str, tuple[str, ...]], parser: str | None) -> bool:
    tokens = needed.get(parser, ()) if parser is not None else ()
    return bool(tokens) and signs.lacks(tokens)


@functools.lru_cache(maxsize=8)
def with_file(path: Path | None) -> Families:
    """The project's own, after those of the user's file (YAML or JSON of the same form). Read once.

    Raises:
        FamiliesError: the file cannot be used.
    """
    built_in = msgspec.json.decode(_BUILT_IN.read_bytes(), type=FamiliesFile)
    return Families(built_in) if path is None else Families(read_families(path), built_in)


def _why(condition: Condition, signs: FamilySigns, said: Thinks, text: str) -> tuple[str, ...] | None:
    """Why a condition holds, for people; None if it does not."""
    if condition.architectures and signs.architecture not in condition.architectures:
        return None
    if condition.model_types and signs.model_type not in condition.model_types:
        return None
    if condition.thinks and said not in condition.thinks:
        return None
    if not signs.response_fields.issuperset(condition.response_template):
        return None
    if not all(any(fnmatchcase(name, glob) for name in signs.files) for glob in condition.files):
        return None
    named = re.search(condition.model_name, signs.name, re.IGNORECASE) if condition.model_name else None
    if condition.model_name and named is None:
        return None
    markers = _found(condition.template, text) if condition.template else ()
    if markers is None:
        return None
    why = [f"architectures[0] is {signs.architecture}"] if condition.architectures else []
    why += [f"model_type is {signs.model_type}"] if condition.model_types else []
    why += [f'name contains "{named.group()}"'] if named and named.group() else []
    why += [f"the chat template has {', '.join(markers)}"] if markers else []
    why += [_THINKING_IN_WORDS[said]] if condition.thinks else []
    why += [f"{', '.join(condition.files)} are there"] if condition.files else []
    if condition.response_template:
        why.append("tokenizer_config.json has a response_template")
    return tuple(why)


_THINKING_IN_WORDS = {
    Thinks.ALWAYS: "its generation prompt begins to think",
    Thinks.ON: "it thinks unless the request switches that off",
    Thinks.OFF: "it can be asked to think",
    Thinks.NEVER: "its generation prompt says nothing of thinking",
}


def _found(markers: Markers, text: str) -> tuple[str, ...] | None:
    """The markers that are there; None if one is missing, or one is there that must not be."""
    if any(each in text for each in markers.none) or not all(each in text for each in markers.all):
        return None
    some = tuple(each for each in markers.any if each in text)
    return None if markers.any and not some else (*markers.all, *some)
