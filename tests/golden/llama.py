"""Writes a random Llama and the results of transformers for it to llama/.

    python3 tests/golden/llama.py

The model has the architecture of Llama-3.2 (grouped-query attention, tied head, rotary frequencies
rescaled by the `llama3` rule) at a width of 32. Each case is a padded batch with logits,
log-probabilities, entropies and a greedy continuation; then a loss with its gradients, and the
parameters after three steps of torch.optim.AdamW. Everything is generated from one seed, in f32, on
one thread.
"""

import json
import pathlib

import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent / "llama"
VOCABULARY, PAD, GREEDY = 128, 2, 12
IGNORED = -100
# The keys of the configuration that define the model.
KEPT = [
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps",
    "max_position_embeddings", "rope_parameters", "tie_word_embeddings", "attention_bias", "mlp_bias",
    "bos_token_id", "eos_token_id", "pad_token_id",
]
# Rescaled frequencies only matter at large positions.
FAR = [0, 9000, 60000]


def model():
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        hidden_act="silu",
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=PAD,
        # Large enough that the softmax is far from uniform.
        initializer_range=0.1,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        attn_implementation="eager",
    )
    llama = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in llama.named_parameters():
            if "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return llama


def draw(rows, columns):
    return torch.randint(3, VOCABULARY, (rows, columns))


def padded(lengths, left):
    """Random rows of these lengths, padded on one side, with their mask."""
    width = max(lengths)
    ids = torch.full((len(lengths), width), PAD)
    mask = torch.zeros((len(lengths), width), dtype=torch.long)
    for row, length in enumerate(lengths):
        real = slice(width - length, width) if left else slice(0, length)
        ids[row, real] = draw(1, length)[0]
        mask[row, real] = 1
    return ids, mask


def case(llama, tensors, name, ids, mask, positions=None, greedy=True):
    given = {} if positions is None else {"position_ids": positions}
    if positions is None:
        # Without positions transformers counts columns, padding included.
        given = {"position_ids": torch.arange(ids.shape[1]).expand_as(ids)}
    with torch.no_grad():
        logits = llama(input_ids=ids, attention_mask=mask, **given).logits
    logp = torch.log_softmax(logits.double(), -1)
    tensors[f"logits.{name}"] = logits.contiguous()
    following = logp[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    return {
        "name": name,
        "input_ids": ids.tolist(),
        "attention_mask": mask.tolist(),
        "position_ids": None if positions is None else positions.tolist(),
        "logits_tensor": f"logits.{name}",
        "logprobs": following.tolist(),
        "entropy": (-(logp.exp() * logp).sum(-1))[:, :-1].tolist(),
        "greedy": continued(llama, ids, mask, given["position_ids"]) if greedy else None,
    }


def continued(llama, ids, mask, positions):
    """Greedy continuation of each row, one full pass per token, without the end-of-turn token."""
    rows = []
    for row in range(len(ids)):
        real = mask[row] == 1
        text, at = ids[row, real].tolist(), positions[row, real].tolist()
        start = len(text)
        for _ in range(GREEDY):
            with torch.no_grad():
                logits = llama(
                    input_ids=torch.tensor([text]), position_ids=torch.tensor([at])
                ).logits[0, -1]
            logits[llama.config.eos_token_id] = -torch.inf
            text.append(int(logits.argmax()))
            at.append(at[-1] + 1)
        rows.append(text[start:])
    return rows


def training(llama, tensors):
    ids, mask = padded([10, 7], left=False)
    labels = torch.where(mask == 1, ids, IGNORED)
    # Prompt tokens have no loss.
    labels[:, :3] = IGNORED
    settings = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
    optimizer = torch.optim.AdamW(
        llama.parameters(),
        lr=settings["lr"],
        betas=(settings["beta1"], settings["beta2"]),
        eps=settings["eps"],
        weight_decay=settings["weight_decay"],
    )
    named = dict(llama.named_parameters())
    norms = lambda of: {name: of(p).double().norm().item() for name, p in named.items()}
    losses, found = [], {}
    for step in range(4):
        optimizer.zero_grad()
        loss = llama(
            input_ids=ids,
            attention_mask=mask,
            position_ids=torch.arange(ids.shape[1]).expand_as(ids),
            labels=labels,
        ).loss
        losses.append(loss.item())
        if step == 3:
            break
        loss.backward()
        if step == 0:
            found["grad_norms"] = norms(lambda p: p.grad)
            total = sum(norm**2 for norm in found["grad_norms"].values()) ** 0.5
            found["grad_norm_total"] = total
            for name, parameter in named.items():
                tensors[f"grad.{name}"] = parameter.grad.clone()
        optimizer.step()
    found["param_norms_after_3"] = norms(lambda p: p.detach())
    for name, parameter in named.items():
        tensors[f"param_after_3.{name}"] = parameter.detach().clone()
    return {
        "input_ids": ids.tolist(),
        "attention_mask": mask.tolist(),
        "labels": labels.tolist(),
        "adamw": settings,
        "losses": losses,
        **found,
    }


def main():
    torch.set_num_threads(1)
    torch.manual_seed(19)
    llama, tensors = model(), {}
    # The weights in the file, without the tied head.
    save_config = llama.config.to_dict()
    weights = {name: p.detach().clone() for name, p in llama.named_parameters()}
    ones = lambda ids: torch.ones_like(ids)
    alone, several = draw(1, 9), draw(3, 12)
    far = torch.tensor([FAR[0] + i for i in range(4)] + [FAR[1] + i for i in range(4)]
                       + [FAR[2] + i for i in range(4)])[None]
    wide = draw(1, 12)
    cases = [
        case(llama, tensors, "one_row", alone, ones(alone)),
        case(llama, tensors, "three_rows", several, ones(several)),
        case(llama, tensors, "padded_right", *padded([11, 6, 2], left=False)),
        case(llama, tensors, "padded_left", *padded([11, 6, 2], left=True)),
        case(llama, tensors, "far_positions", wide, ones(wide), far),
        case(llama, tensors, "one_token", draw(1, 1), torch.ones(1, 1, dtype=torch.long)),
    ]
    rotary = llama.model.rotary_emb
    fixtures = {
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}, f32",
        "cases": cases,
        "rope_inv_freq": rotary.inv_freq.double().tolist(),
        "rope_attention_scaling": float(rotary.attention_scaling),
        "train": training(llama, tensors),
    }
    HERE.mkdir(exist_ok=True)
    config = {"architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    config |= {key: save_config[key] for key in KEPT}
    write = lambda name, value: (HERE / name).write_text(json.dumps(value, indent=1) + "\n")
    write("config.json", config)
    write("fixtures.json", fixtures)
    save_file(weights, HERE / "model.safetensors")
    save_file(tensors, HERE / "fixtures.safetensors")


if __name__ == "__main__":
    main()
