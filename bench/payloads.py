"""What is asked and what is answered: chat requests and chat completions of a given size."""

import json

REQUEST_BYTES = 280
ANSWER_BYTES = 576
MODEL = "gpt-4o-mini"
CREATED = 1764150000


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def chat_request(size: int = REQUEST_BYTES) -> str:
    """Returns a chat request of ``size`` bytes."""

    def of(question: str) -> str:
        messages = [
            {"role": "system", "content": "You are a helpful assistant that answers in one sentence."},
            {"role": "user", "content": question},
        ]
        return _dump({"model": MODEL, "messages": messages, "temperature": 0.7, "max_tokens": 128})

    return of("Why is the sky blue?".ljust(20 + size - len(of("Why is the sky blue?")), "?"))


def stream_request() -> str:
    return _dump({**json.loads(chat_request()), "stream": True})


def chat_answer(size: int = ANSWER_BYTES) -> str:
    """Returns a chat completion of ``size`` bytes."""

    def of(text: str) -> str:
        message = {"role": "assistant", "content": text, "refusal": None}
        return _dump(
            {
                "id": "chatcmpl-bench",
                "object": "chat.completion",
                "created": CREATED,
                "model": MODEL,
                "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 41, "completion_tokens": 60, "total_tokens": 101},
            }
        )

    sentence = "Air scatters the short waves of sunlight more than the long ones. "
    length = size - len(of(""))
    return of((sentence * (length // len(sentence) + 1))[:length])


def models_answer() -> str:
    model = {"id": MODEL, "object": "model", "created": CREATED, "owned_by": "bench"}
    return _dump({"object": "list", "data": [model]})
