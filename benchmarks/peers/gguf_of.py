"""A GGUF file of a Llama in a Hugging Face folder, its matrices in one number type.

    python gguf_of.py FOLDER OUT.gguf --dtype bf16

What llama.cpp reads, with the same weights as everybody else's.
"""

import argparse
import json
from pathlib import Path

import gguf
from safetensors.torch import load_file

TYPES = {"f32": gguf.GGMLQuantizationType.F32, "bf16": gguf.GGMLQuantizationType.BF16}
FILE_TYPES = {"f32": gguf.LlamaFileType.ALL_F32, "bf16": gguf.LlamaFileType.MOSTLY_BF16}
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def name_of(name):
    """GGUF's name of a tensor."""
    stem = name.removesuffix(".weight")
    if stem in NAMES:
        return f"{NAMES[stem]}.weight"
    layer, rest = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{NAMES[rest]}.weight"


def interleaved(matrix, heads):
    """Rows of q or k in GGUF's order: the two halves that rotate together stand in turn."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, -1)


def add_tokenizer(writer, folder, size):
    described = json.loads((folder / "tokenizer.json").read_text())
    added = {token["id"]: token["content"] for token in described["added_tokens"]}
    by_id = {id: token for token, id in described["model"]["vocab"].items()} | added
    tokens = [by_id.get(id, f"[PAD{id}]") for id in range(size)]
    kinds = [gguf.TokenType.CONTROL if id in added else gguf.TokenType.NORMAL for id in range(size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    gguf.SpecialVocab(folder, load_merges=True).add_to_gguf(writer)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("out")
    parser.add_argument("--dtype", choices=TYPES, default="bf16")
    args = parser.parse_args()
    config = json.loads((args.folder / "config.json").read_text())
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    writer = gguf.GGUFWriter(args.out, "llama")
    writer.add_file_type(FILE_TYPES[args.dtype])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    add_tokenizer(writer, args.folder, config["vocab_size"])
    for name, tensor in load_file(args.folder / "model.safetensors").items():
        numbers = tensor.float().numpy()
        if ".q_proj." in name or ".k_proj." in name:
            numbers = interleaved(numbers, heads if ".q_proj." in name else kv_heads)
        # Norms stay in f32, as llama.cpp's own converter leaves them.
        kind = TYPES[args.dtype] if numbers.ndim > 1 else TYPES["f32"]
        writer.add_tensor(name_of(name), gguf.quantize(numbers, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
