"""What the echo says: prompts out of request bodies, words out of prompts. Pure."""

import re
from typing import Any, NamedTuple

from gateway.core.errors import BadRequest
from gateway.core.validators import is_whole_number

MAX_CHOICES = 128
_WORD = re.compile(r"\S+\s*|\s+")


class Prompt(NamedTuple):
    """``text`` comes back; ``tokens`` is how many words were sent in all."""

    text: str
    tokens: int


class Choice(NamedTuple):
    words: tuple[str, ...]
    finish_reason: str

    @property
    def text(self) -> str:
        return "".join(self.words)


class Reply(NamedTuple):
    choices: tuple[Choice, ...]
    prompt_tokens: int
    completion_tokens: int


def reply(prompt: Prompt, fields: dict[str, Any]) -> Reply:
    """Cut the prompt as ``stop`` and the token limit ask, ``n`` times. Raises BadRequest."""
    count = _whole(fields, "n", 1, MAX_CHOICES) or 1
    limit = _limit(fields)
    words = tuple(_WORD.findall(_until_stop(prompt.text, _stops(fields))))
    finish = "stop" if limit is None or len(words) <= limit else "length"
    choice = Choice(words[:limit], finish)
    return Reply((choice,) * count, prompt.tokens, count * len(choice.words))


def chat_prompt(fields: dict[str, Any]) -> Prompt:
    """The last user message. Raises BadRequest for messages that are none."""
    return _from_messages(fields.get("messages"), "messages")


def responses_prompt(fields: dict[str, Any]) -> Prompt:
    """The Responses API's ``input``: a string, or a list of messages."""
    given = fields.get("input")
    if isinstance(given, str):
        return Prompt(given, _count(given))
    return _from_messages(given, "input")


def completion_prompt(fields: dict[str, Any]) -> Prompt:
    prompt = fields.get("prompt", "")
    if isinstance(prompt, list) and prompt and all(isinstance(item, str) for item in prompt):
        prompt = prompt[-1]
    if not isinstance(prompt, str):
        raise BadRequest("`prompt` must be a string or a list of strings.", code="invalid_type", param="prompt")
    return Prompt(prompt, _count(prompt))


def wants_usage(fields: dict[str, Any]) -> bool:
    options = fields.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _from_messages(messages: Any, param: str) -> Prompt:
    if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
        raise BadRequest(f"`{param}` must be a list of messages, one at least.", code="invalid_type", param=param)
    texts = [(message.get("role"), _text_of(message.get("content"))) for message in messages]
    last = next((text for role, text in reversed(texts) if role == "user"), texts[-1][1])
    return Prompt(last, sum(_count(text) for _, text in texts))


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _count(text: str) -> int:
    return len(text.split())


def _limit(fields: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        limit = _whole(fields, name, 0, 2**31)
        if limit is not None:
            return limit
    return None


def _whole(fields: dict[str, Any], name: str, low: int, high: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not is_whole_number(value, low, high):
        raise BadRequest(f"`{name}` must be a whole number from {low} to {high}.", code="invalid_value", param=name)
    return value


def _stops(fields: dict[str, Any]) -> list[str]:
    stop = fields.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(item, str) for item in stops):
        raise BadRequest("`stop` must be a string or a list of strings.", code="invalid_type", param="stop")
    return [item for item in stops if item]


def _until_stop(text: str, stops: list[str]) -> str:
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
