"""The text of a model's chat templates, and what it says of thinking. The templates are never run.

vLLM takes `chat_template.jinja` where there is one, else what tokenizer_config.json holds (one template or
several named ones), and for images what chat_template.json holds. Named ones may have a folder of their own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from local_llm.catalog import config
from local_llm.catalog.files import INDEX_LIMIT_BYTES, Folder, Unservable, list_names, read_start

# The longest known one has 60 kB.
_LARGEST_TEMPLATE_BYTES = 1 << 20
_MOST_NAMED_TEMPLATES = 16

TEMPLATE_FILE = "chat_template.jinja"
_JSON_FILES = ("tokenizer_config.json", "chat_template.json")
_NAMED_TEMPLATES = "additional_chat_templates"

# vLLM takes what has one of these for a template, not for the path of one (renderers/chat_utils.py).
_SIGNS_OF_JINJA = frozenset("{}\n")


class Thinks(str, Enum):
    """Whether the model is made to think by its template's generation prompt."""

    ALWAYS = "always"
    ON = "on"  # by default; the request can switch it off
    OFF = "off"  # by default; the request can switch it on
    NEVER = "never"  # or nothing is said of it


@dataclass(frozen=True, slots=True)
class FoundTemplates:
    """The chat templates of a folder.

    Attributes:
        evidence: where they were found, for people; None if there are none.
        texts: of all of them.
        response_fields: those of tokenizer_config.json's ``response_template``, which newer checkpoints bring
            to say how their answers are to be read; none if it has no such template, or one of a shape that
            vLLM refuses.
    """

    evidence: str | None
    texts: tuple[str, ...] = ()
    response_fields: frozenset[str] = frozenset()


def find_templates(folder: Folder) -> FoundTemplates:
    """Reads what there is; every file that is looked at is watched from then on.

    Raises:
        Unservable: a file that holds the template is damaged.
    """
    named = _named(folder)
    if TEMPLATE_FILE in folder.names and folder.has_file(TEMPLATE_FILE):
        texts = (_text(folder, folder.at(TEMPLATE_FILE)), *named)
        return FoundTemplates(f"{TEMPLATE_FILE} is there", texts, _response_fields_beside(folder))
    objects = {
        name: folder.read_object(name, INDEX_LIMIT_BYTES) for name in _JSON_FILES if name in folder.names
    }
    texts = tuple(text for content in objects.values() for text in in_json(content))
    holder = next((name for name, content in objects.items() if config.has_template(content)), None)
    evidence = f"{holder} has a chat template" if holder else None
    if evidence is None and _NAMED_TEMPLATES in folder.names:
        evidence = f"{_NAMED_TEMPLATES}/ is there"
    fields = response_fields(objects.get("tokenizer_config.json", {}))
    return FoundTemplates(evidence, (*texts, *named), fields)


def in_json(content: Mapping[str, object]) -> tuple[str, ...]:
    """The templates in a decoded tokenizer_config.json or chat_template.json: one, or named ones."""
    template = content.get("chat_template")
    if isinstance(template, str):
        return (template[:_LARGEST_TEMPLATE_BYTES],) if template else ()
    named = template[:_MOST_NAMED_TEMPLATES] if isinstance(template, list) else []
    found = (each.get("template") for each in named if isinstance(each, dict))
    return tuple(each[:_LARGEST_TEMPLATE_BYTES] for each in found if isinstance(each, str))


def response_fields(tokenizer_config: Mapping[str, object]) -> frozenset[str]:
    """The fields of a ``response_template`` that vLLM can serve; none of one that it would refuse."""
    template = tokenizer_config.get("response_template")
    fields = template.get("fields") if isinstance(template, dict) else None
    if not isinstance(fields, dict) or not fields.keys() <= {"thinking", "content", "tool_calls"}:
        return frozenset()
    return frozenset(fields)


UNREAD = "{# a template that could not be read #}"
"""Stands for a template of the user's that nothing is known of."""


def read_given(folder: Folder, given: str) -> str:
    """The text of what the settings give vLLM as `--chat-template`: a file, or the template itself.

    The file is watched with the model's own. What cannot be read is left to vLLM's own message.
    """
    if not _SIGNS_OF_JINJA.isdisjoint(given):
        return given
    path = str(Path(given).absolute())
    folder.front.see(path)
    return _text(folder, path)


@functools.lru_cache(maxsize=64)
def plain(text: str) -> str:
    r"""A template without its comments, and with `\"` as `"`, so that markers can be looked for."""
    return _COMMENT.sub("", text).replace('\\"', '"')


def generation_prompt(template: str) -> str:
    """What a plain template writes after the messages: from its last `add_generation_prompt` on."""
    mention = template.rfind("add_generation_prompt")
    if mention < 0:
        return ""
    # `{{ '<think>' if add_generation_prompt }}` stands before its condition.
    return template[max(template.rfind("{%", 0, mention), template.rfind("{{", 0, mention), 0) :]


def thinks(templates: Iterable[str]) -> Thinks:
    """What plain templates say of thinking; of several, the first that says anything."""
    said = (_thinks(each) for each in templates)
    return next((each for each in said if each is not Thinks.NEVER), Thinks.NEVER)


# The switch is called enable_thinking nearly everywhere, thinking in DeepSeek's and Kimi's templates.
_SWITCH = r"\b(?:enable_)?thinking\b"
_MENTIONED = re.compile(_SWITCH)
# Undefined, the switch lets these think: {% if enable_thinking is defined and enable_thinking is false %}
_ON_UNLESS = re.compile(
    rf"{_SWITCH} +(?:is|==) +false"
    rf"|{_SWITCH} +is +defined +and +not +(?:\w+\.)?{_SWITCH}"
    rf"|{_SWITCH} +is +not +defined +or|not +{_SWITCH} +is +defined +or",
    re.IGNORECASE,
)
_SET_ON = re.compile(
    rf"{_SWITCH} *= *true|{_SWITCH} *\| *default\( *true"
    rf"|{_SWITCH} +if +{_SWITCH} +is +defined +else +true|true +if +{_SWITCH} +is +not +defined",
    re.IGNORECASE,
)
_OPEN, _CLOSED = re.compile(r"<(?:\w+:)?think>|\[THINK\]"), re.compile(r"</(?:\w+:)?think>|\[/THINK\]")
# One that is never closed goes to the end: looked for again from each of its signs, it would take hours.
_COMMENT = re.compile(r"\{#.*?(?:#\}|\Z)", re.DOTALL)


def _thinks(template: str) -> Thinks:
    prompt = generation_prompt(template)
    if _MENTIONED.search(prompt):
        on = _ON_UNLESS.search(prompt) or _SET_ON.search(template)
        return Thinks.ON if on else Thinks.OFF
    if _OPEN.search(prompt) and not _CLOSED.search(prompt):
        return Thinks.ALWAYS
    return Thinks.NEVER


def _named(folder: Folder) -> tuple[str, ...]:
    """The templates in the folder of named ones."""
    if _NAMED_TEMPLATES not in folder.names:
        return ()
    place = folder.at(_NAMED_TEMPLATES)
    folder.front.see(place)
    try:
        names = sorted(name for name in list_names(place) if name.endswith(".jinja"))
    except Unservable:
        return ()
    paths = [f"{place}/{name}" for name in names[:_MOST_NAMED_TEMPLATES]]
    for path in paths:
        folder.front.see(path)
    return tuple(_text(folder, path) for path in paths)


def _text(folder: Folder, path: str) -> str:
    """A template file's text, cut where it is absurdly long; empty if it cannot be read."""
    folder.front.see(path)
    with suppress(OSError, Unservable):
        return read_start(path, _LARGEST_TEMPLATE_BYTES).decode(errors="replace")
    return ""


def _response_fields_beside(folder: Folder) -> frozenset[str]:
    """As `response_fields`, of a tokenizer_config.json that need not be decoded for its template.

    It may have megabytes; nearly none has what is looked for.
    """
    if "tokenizer_config.json" not in folder.names:
        return frozenset()
    path = folder.at("tokenizer_config.json")
    folder.front.see(path)
    with suppress(OSError, Unservable):
        if b'"response_template"' in read_start(path, INDEX_LIMIT_BYTES):
            return response_fields(folder.read_object("tokenizer_config.json", INDEX_LIMIT_BYTES))
    return frozenset()
