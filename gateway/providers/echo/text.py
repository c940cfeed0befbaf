"""Reads prompts from request bodies and makes the echo's replies from them. Pure."""

import re
from typing import Any, NamedTuple

from gateway.core.errors import BadRequest
from gateway.core.validators import is_whole_number

MAX_CHOICES = 128
_WORD = re.compile(r"\S+\s*|\s+")


class Prompt(NamedTuple):
    """Holds the text that comes back, and the number of tokens that were sent in all."""

    text: str
    tokens: int


class Choice(NamedTuple):
    """Holds one choice of a reply. A token of an echo is one word, with the white space behind it."""

    tokens: tuple[str, ...]
    finish_reason: str

    @property
    def text(self) -> str:
        """The tokens joined."""
        return "".join(self.tokens)


class Reply(NamedTuple):
    """Holds the choices, and the tokens of the prompt and of all choices together."""

    choices: tuple[Choice, ...]
    prompt_tokens: int
    completion_tokens: int


def reply(prompt: Prompt, fields: dict[str, Any]) -> Reply:
    """Returns the prompt ``n`` times, cut at ``stop`` and at the token limit. Raises BadRequest for invalid values of these."""
    count = _optional_number(fields, "n", 1, MAX_CHOICES) or 1
    limit = _token_limit(fields)
    tokens = tuple(_WORD.findall(_until_stop(prompt.text, _stop_strings(fields))))
    finish = "stop" if limit is None or len(tokens) <= limit else "length"
    choice = Choice(tokens[:limit], finish)
    return Reply((choice,) * count, prompt.tokens, count * len(choice.tokens))


def chat_prompt(fields: dict[str, Any]) -> Prompt:
    """Returns the last message of the user. Raises BadRequest for invalid messages."""
    return _last_user_message(fields.get("messages"), "messages")


def responses_prompt(fields: dict[str, Any]) -> Prompt:
    """Returns the Responses API's ``input``, a string or a list of messages. Raises BadRequest for anything else."""
    given = fields.get("input")
    if isinstance(given, str):
        return Prompt(given, _count_tokens(given))
    return _last_user_message(given, "input")


def completion_prompt(fields: dict[str, Any]) -> Prompt:
    """Returns ``prompt``, or the last of a list of prompts. Raises BadRequest for anything else."""
    prompt = fields.get("prompt", "")
    if isinstance(prompt, list) and prompt and all(isinstance(item, str) for item in prompt):
        prompt = prompt[-1]
    if not isinstance(prompt, str):
        raise BadRequest("`prompt` must be a string or a list of strings.", code="invalid_type", param="prompt")
    return Prompt(prompt, _count_tokens(prompt))


def wants_usage(fields: dict[str, Any]) -> bool:
    """Returns whether ``stream_options`` ask for the usage at the end of a stream."""
    options = fields.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _last_user_message(messages: Any, param: str) -> Prompt:
    if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
        raise BadRequest(f"`{param}` must be a list of messages, one at least.", code="invalid_type", param=param)
    texts = [(message.get("role"), _message_text(message.get("content"))) for message in messages]
    last = next((text for role, text in reversed(texts) if role == "user"), texts[-1][1])
    return Prompt(last, sum(_count_tokens(text) for _, text in texts))


def _message_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _count_tokens(text: str) -> int:
    return len(text.split())


def _token_limit(fields: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        limit = _optional_number(fields, name, 0, 2**31)
        if limit is not None:
            return limit
    return None


def _optional_number(fields: dict[str, Any], name: str, low: int, high: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not is_whole_number(value, low, high):
        raise BadRequest(f"`{name}` must be a whole number from {low} to {high}.", code="invalid_value", param=name)
    return value


def _stop_strings(fields: dict[str, Any]) -> list[str]:
    stop = fields.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(item, str) for item in stops):
        raise BadRequest("`stop` must be a string or a list of strings.", code="invalid_type", param="stop")
    return [item for item in stops if item]


def _until_stop(text: str, stops: list[str]) -> str:
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
