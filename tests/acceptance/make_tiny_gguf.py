"""Write a tiny llama model with random weights as a GGUF file: `python make_tiny_gguf.py OUT.gguf`.

It says nothing sensible, but a real inference server loads it, tokenizes, samples, streams and embeds with it.
That is what the acceptance run needs, and no weights have to be fetched for it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

LAYERS = 2
EMBEDDING = 64
HEADS = 4
FEED_FORWARD = 128
CONTEXT = 2048
SEED = 20231106

SPECIAL = [
    ("<unk>", gguf.TokenType.UNKNOWN),
    ("<s>", gguf.TokenType.CONTROL),
    ("</s>", gguf.TokenType.CONTROL),
]
BYTE_TOKENS = 256
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['role'] }}: {{ message['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)

Weights = npt.NDArray[np.float32]


def vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Texts, scores and types: three control tokens, every byte, then 160 two-letter words for the model to say."""
    tokens = [text for text, _ in SPECIAL]
    types = [int(kind) for _, kind in SPECIAL]
    tokens += [f"<0x{byte:02X}>" for byte in range(BYTE_TOKENS)]
    types += [int(gguf.TokenType.BYTE)] * BYTE_TOKENS
    words = ["▁" + consonant + vowel for consonant in "bcdfghjklmnpqrstvwxyz" for vowel in "aeiou"]
    # The tokenizer only ever joins two known tokens, so the parts of a word must be tokens as well.
    parts = ["▁", *"abcdefghijklmnopqrstuvwxyz", *(word[:2] for word in words[::5])]
    tokens += parts + words
    types += [int(gguf.TokenType.NORMAL)] * (len(parts) + len(words))
    scores = [0.0] * len(SPECIAL) + [-1000.0] * BYTE_TOKENS
    scores += [-float(rank) for rank in range(len(parts) + len(words))]
    return tokens, scores, types


def output_weights(random: np.random.Generator, size: int) -> Weights:
    """The last matrix: only words can win, since a lone byte is no UTF-8 and an early end no stream."""
    weights = random.normal(0.0, 0.5, (size, EMBEDDING)).astype(np.float32)
    weights[: len(SPECIAL) + BYTE_TOKENS] = 0.0
    return weights


def add_weights(writer: gguf.GGUFWriter, size: int) -> None:
    random = np.random.default_rng(SEED)

    def matrix(rows: int, columns: int) -> Weights:
        return random.normal(0.0, columns**-0.5, (rows, columns)).astype(np.float32)

    ones = np.ones(EMBEDDING, dtype=np.float32)
    writer.add_tensor("token_embd.weight", matrix(size, EMBEDDING))
    for layer in range(LAYERS):
        name = f"blk.{layer}."
        writer.add_tensor(name + "attn_norm.weight", ones)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"{name}{part}.weight", matrix(EMBEDDING, EMBEDDING))
        writer.add_tensor(name + "ffn_norm.weight", ones)
        writer.add_tensor(name + "ffn_gate.weight", matrix(FEED_FORWARD, EMBEDDING))
        writer.add_tensor(name + "ffn_up.weight", matrix(FEED_FORWARD, EMBEDDING))
        writer.add_tensor(name + "ffn_down.weight", matrix(EMBEDDING, FEED_FORWARD))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", output_weights(random, size))


def add_description(writer: gguf.GGUFWriter, size: int) -> None:
    writer.add_name("tiny-random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(EMBEDDING // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    # Without a pooling the server answers one vector per token, which is not what /v1/embeddings promises.
    writer.add_pooling_type(gguf.PoolingType.MEAN)


def add_tokenizer(writer: gguf.GGUFWriter, tokens: list[str], scores: list[float], types: list[int]) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_model(path: Path) -> None:
    tokens, scores, types = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    add_description(writer, len(tokens))
    add_tokenizer(writer, tokens, scores, types)
    add_weights(writer, len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_tiny_gguf.py OUT.gguf")
    write_model(Path(sys.argv[1]))
