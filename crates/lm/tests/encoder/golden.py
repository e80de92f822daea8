"""Generates golden.json: vectors of sentences by transformers and sentence-transformers.

    python golden.py FOLDER_OF_ALL_MINILM_L6_V2 > golden.json

The small models' weights are computed by a formula and need no file: element i of tensor k (in
alphabetical order of names) is 0.5 sin(0.7 i + 1.3 k), plus 1 if the tensor scales a norm.
"""

import json
import re
import sys

import sentence_transformers
import torch
import transformers

SMALL = [
    ("bert", "gelu", "mean"),
    ("bert", "gelu_new", "cls"),
    ("roberta", "relu", "mean"),
]
TEXTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15], [7, 6, 5], [], [19] * 12]
CLS, SEP = 2, 3
PARAGRAPH = (
    "The ferry to the island leaves at noon, and whoever misses it waits among gulls and "
    "crates of lemons for the evening boat. "
)
SENTENCES = [
    "Who built the lighthouse that the storm of 1912 destroyed?",
    "A storm in the year 1912 brought down the lighthouse, a work of the mason Ada Quill.",
    "Fresh bread is best eaten on the day that it was baked.",
    "CAFÉ Zürich — naïve façade, 東京, and 3.14 × 10⁻²!",
    "",
    PARAGRAPH * 15,
]


def small(model_type, activation, pooling):
    shape = dict(
        vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, hidden_act=activation,
        pad_token_id=0, layer_norm_eps=1e-6,
    )
    if model_type == "bert":
        model = transformers.BertModel(transformers.BertConfig(**shape), add_pooling_layer=False)
    else:
        shape.update(pad_token_id=1, type_vocab_size=1, max_position_embeddings=18)
        config = transformers.RobertaConfig(**shape)
        model = transformers.RobertaModel(config, add_pooling_layer=False)
    with torch.no_grad():
        for k, (name, tensor) in enumerate(sorted(model.named_parameters())):
            i = torch.arange(tensor.numel(), dtype=torch.float64).view(tensor.shape)
            values = 0.5 * torch.sin(0.7 * i + 1.3 * k)
            tensor.copy_(values + 1 if name.endswith("LayerNorm.weight") else values)
        vectors = []
        for text in TEXTS:
            hidden = model.eval()(torch.tensor([[CLS, *text, SEP]])).last_hidden_state[0]
            vectors.append((hidden[0] if pooling == "cls" else hidden.mean(0)).tolist())
    config = json.loads(model.config.to_json_string(use_diff=False))
    keys = [*shape, "model_type", "type_vocab_size"]
    return {
        "config": {key: config[key] for key in keys},
        "pooling": pooling,
        "texts": TEXTS,
        "vectors": [[round(x, 6) for x in v] for v in vectors],
    }


def minilm(folder):
    model = sentence_transformers.SentenceTransformer(folder, device="cpu")
    vectors = torch.tensor(model.encode(SENTENCES))
    rounded = lambda rows: [[round(x, 6) for x in row] for row in rows.tolist()]
    return {
        "sentences": [[s, 1] for s in SENTENCES[:-1]] + [[PARAGRAPH, 15]],
        "max_tokens": model.max_seq_length,
        "first": rounded(vectors[:, :8]),
        "products": rounded(vectors @ vectors.T),
    }


torch.manual_seed(0)
versions = [f"{m.__name__} {m.__version__}" for m in (torch, transformers, sentence_transformers)]
golden = {
    "made_by": versions,
    "small": [small(*case) for case in SMALL],
    "minilm": minilm(sys.argv[1]),
}
# One line a row, so that changes can be read.
text = json.dumps(golden, indent=1, ensure_ascii=False)
print(re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text))
