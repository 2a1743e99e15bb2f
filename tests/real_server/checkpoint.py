"""Makes the smallest checkpoint that a Pie server loads: random weights of a fixed seed, 37 MB.

The server has a table of the models that it knows, and takes a checkpoint only if the name, type
and shape of every tensor are those of one of them: `SKU` is the smallest. What such a model says
is noise; that it can be loaded is all that the server wants in order to boot.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["SKU", "make_checkpoint"]

SKU: Final = "qwen35-tiny-u4g64-kv-bf16"
"""What the server calls a model of these shapes."""

_WORDS: Final = 248_320
_WIDTH: Final = 256
_INNER_WIDTH: Final = 512
_LAYERS: Final = 4

# The last layer attends to all that was said, the others keep a state of fixed size.
_KEY_HEADS, _VALUE_HEADS, _STATE_WIDTH = 4, 8, 128
_QUERY_HEADS, _HEAD_WIDTH = 4, 64

_GROUP: Final = 64
"""How many weights share a scale and a bias."""
_STEP: Final = 0.003
_LOWEST: Final = -0.0225
"""What the 4 bits of a weight mean: from -0.0225 to 0.0225, in steps of 0.003."""

_SPLIT_AT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL_WORDS: Final = """
    <|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|>
    <|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|>
    <|image_pad|> <|video_pad|> <tool_call> </tool_call> <|fim_prefix|> <|fim_middle|>
    <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|> <tool_response> </tool_response> <think>
    </think> <|audio_start|> <|audio_end|> <tts_pad> <tts_text_bos> <tts_text_eod>
    <tts_text_bos_single> <|audio_pad|>
"""


def make_checkpoint(folder: Path) -> None:
    """Write ``model.safetensors``, ``config.json`` and ``tokenizer.json`` into ``folder``."""
    _write_tensors(folder / "model.safetensors", list(_tensors(random.Random(0))))
    config = {"model_type": "qwen3_5", "architectures": ["Qwen3_5ForConditionalGeneration"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()), encoding="utf-8")


class _Tensor(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def _tensors(source: random.Random) -> Iterator[_Tensor]:
    root = "model.language_model"
    yield from _matrix(source, f"{root}.embed_tokens", _WORDS, _WIDTH)
    yield _constant(f"{root}.norm.weight", _WIDTH)
    for number in range(_LAYERS):
        layer = f"{root}.layers.{number}"
        yield _constant(f"{layer}.input_layernorm.weight", _WIDTH)
        yield _constant(f"{layer}.post_attention_layernorm.weight", _WIDTH)
        attention = _full_attention if number == _LAYERS - 1 else _linear_attention
        yield from attention(source, layer)
        yield from _matrix(source, f"{layer}.mlp.gate_proj", _INNER_WIDTH, _WIDTH)
        yield from _matrix(source, f"{layer}.mlp.up_proj", _INNER_WIDTH, _WIDTH)
        yield from _matrix(source, f"{layer}.mlp.down_proj", _WIDTH, _INNER_WIDTH)


def _linear_attention(source: random.Random, layer: str) -> Iterator[_Tensor]:
    name = f"{layer}.linear_attn"
    value_width = _VALUE_HEADS * _STATE_WIDTH
    mixed_width = 2 * _KEY_HEADS * _STATE_WIDTH + value_width
    yield from _matrix(source, f"{name}.in_proj_qkv", mixed_width, _WIDTH)
    yield from _matrix(source, f"{name}.in_proj_z", value_width, _WIDTH)
    yield from _matrix(source, f"{name}.in_proj_b", _VALUE_HEADS, _WIDTH)
    yield from _matrix(source, f"{name}.in_proj_a", _VALUE_HEADS, _WIDTH)
    kernel = b"".join(_bf16(source.gauss(0, 0.1)) for _ in range(mixed_width * 4))
    yield _Tensor(f"{name}.conv1d.weight", "BF16", (mixed_width, 4, 1), kernel)
    yield _constant(f"{name}.dt_bias", _VALUE_HEADS, value=0.1)
    yield _constant(f"{name}.A_log", _VALUE_HEADS, value=0.1)
    yield _constant(f"{name}.norm.weight", _STATE_WIDTH)
    yield from _matrix(source, f"{name}.out_proj", _WIDTH, value_width)


def _full_attention(source: random.Random, layer: str) -> Iterator[_Tensor]:
    name = f"{layer}.self_attn"
    yield from _matrix(source, f"{name}.q_proj", 2 * _QUERY_HEADS * _HEAD_WIDTH, _WIDTH)
    yield from _matrix(source, f"{name}.k_proj", 2 * _HEAD_WIDTH, _WIDTH)
    yield from _matrix(source, f"{name}.v_proj", 2 * _HEAD_WIDTH, _WIDTH)
    yield from _matrix(source, f"{name}.o_proj", _WIDTH, _QUERY_HEADS * _HEAD_WIDTH)
    yield _constant(f"{name}.q_norm.weight", _HEAD_WIDTH)
    yield _constant(f"{name}.k_norm.weight", _HEAD_WIDTH)


def _matrix(source: random.Random, name: str, rows: int, columns: int) -> Iterator[_Tensor]:
    """A matrix of 4 bits per weight, eight in a word, with what they mean beside it."""
    groups = columns // _GROUP
    yield _Tensor(
        f"{name}.weight", "U32", (rows, columns // 8), source.randbytes(rows * columns // 2)
    )
    yield _constant(f"{name}.scales", rows, groups, value=_STEP)
    yield _constant(f"{name}.biases", rows, groups, value=_LOWEST)


def _constant(name: str, *shape: int, value: float = 1.0) -> _Tensor:
    count = 1
    for size in shape:
        count *= size
    return _Tensor(name, "BF16", shape, _bf16(value) * count)


def _bf16(value: float) -> bytes:
    # The upper half of a float of 32 bits.
    return struct.pack("<f", value)[2:]


def _write_tensors(path: Path, tensors: list[_Tensor]) -> None:
    """The safetensors format: the size of a JSON header, the header, the tensors as they are."""
    entries, end = {}, 0
    for tensor in tensors:
        begin, end = end, end + len(tensor.data)
        offsets = [begin, end]
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": offsets,
        }
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for tensor in tensors:
            file.write(tensor.data)


def _tokenizer() -> dict[str, object]:
    """One token for each byte, and the special ones that the server looks for."""
    letters = sorted(_letter_of_each_byte())
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, content in enumerate(_SPECIAL_WORDS.split(), start=len(letters))
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": _SPLIT_AT},
                    "behavior": "Isolated",
                    "invert": False,
                },
                _byte_level(add_prefix_space=False, use_regex=False),
            ],
        },
        "post_processor": None,
        "decoder": _byte_level(add_prefix_space=True, use_regex=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {letter: number for number, letter in enumerate(letters)},
            "merges": [],
        },
    }


def _byte_level(*, add_prefix_space: bool, use_regex: bool) -> dict[str, object]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _letter_of_each_byte() -> Iterator[str]:
    """How byte-level tokenizers write bytes: those that show as they are, others from 256 on."""
    hidden = 256
    for byte in range(256):
        if 0x21 <= byte <= 0x7E or (byte >= 0xA1 and byte != 0xAD):
            yield chr(byte)
        else:
            yield chr(hidden)
            hidden += 1
