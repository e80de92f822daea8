"""A padded training step by transformers and torch on the work of the binary `train_step`.

One row per call, rows sorted by length and padded on the right within each micro-batch,
PPO with the same clips, token mean, gradient clip and AdamW (fused) as Leyden's update.
Prints one line of JSON. `--precision` is one of

f32       f32 throughout; with --exact-norm the oracle for loss and gradient norm
autocast  f32 weights, bf16 where torch.autocast says so
master    bf16 weights and activations; gradients are added up and stepped in f32
"""

import argparse
import json

from common import load_model, median, timed, versions
from generation import peak_memory

import torch

LEARNING_RATE = 1e-6
GRADIENT_CLIP = 1.0
CLIP_LOW, CLIP_HIGH, DUAL_CLIP = 0.2, 0.3, 3.0


class Row:
    """One call: token ids, where its response starts, its rollout's advantage."""

    def __init__(self, call, advantage):
        self.ids = call["prompt_ids"] + call["response_ids"]
        self.start = len(call["prompt_ids"])
        self.advantage = advantage
        self.logp_old = None


def read_rows(path):
    with open(path) as file:
        groups = json.load(file)["groups"]
    rollouts = [rollout for group in groups for rollout in group["rollouts"]]
    rows = [Row(call, r["advantage"]) for r in rollouts for call in r["calls"]]
    return rows, len(rollouts)


class Step:
    def __init__(self, model, rows, args):
        self.model, self.args = model, args
        # Neighbours of like length waste the least padding.
        self.rows = sorted(rows, key=lambda row: len(row.ids))
        self.action_tokens = sum(len(row.ids) - row.start for row in rows)
        self.parameters = list(model.parameters())
        if args.precision == "master":
            self.stepped = [p.detach().float().clone() for p in self.parameters]
        else:
            self.stepped = self.parameters
        self.optimizer = torch.optim.AdamW(self.stepped, lr=LEARNING_RATE, fused=True)
        self.computed_tokens = 0

    def micro_batches(self):
        size = self.args.micro_batch_rows
        return [self.rows[i : i + size] for i in range(0, len(self.rows), size)]

    def logp(self, rows):
        """Log-probabilities of all response tokens of `rows`, one after the other."""
        width = max(len(row.ids) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        actions = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = torch.tensor(row.ids)
            mask[i, : len(row.ids)] = 1
            actions[i, row.start : len(row.ids)] = True
        self.computed_tokens += ids.numel()
        predicting = actions[:, 1:]
        autocast = self.args.precision == "autocast"
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            if self.args.logits == "full":
                logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
                logits = logits[:, :-1][predicting]
            else:
                out = self.model.model(input_ids=ids, attention_mask=mask, use_cache=False)
                logits = self.model.lm_head(out.last_hidden_state[:, :-1][predicting])
        logits = logits.float()
        targets = ids[:, 1:][predicting]
        return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(-1)

    def backward(self, rows, logp_of):
        """Adds the gradient of some rows' share of the loss; returns that share."""
        logp = self.logp(rows)
        lengths = [len(row.ids) - row.start for row in rows]
        values = logp.detach().split(lengths)
        logp_of.update(zip((id(row) for row in rows), values))
        old = torch.cat([v if r.logp_old is None else r.logp_old for r, v in zip(rows, values)])
        advantage = torch.cat(
            [torch.full((n,), row.advantage) for row, n in zip(rows, lengths)]
        )
        ratio = (logp - old).clamp(-20, 20).exp()
        plain = -advantage * ratio
        clipped = -advantage * ratio.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
        loss = torch.maximum(plain, clipped)
        loss = torch.where(advantage < 0, torch.minimum(loss, -DUAL_CLIP * advantage), loss)
        loss = loss.sum() / self.action_tokens
        loss.backward()
        if self.args.precision == "master":
            grads = [p.grad for p in self.parameters]
            if self.stepped[0].grad is None:
                for master, grad in zip(self.stepped, grads):
                    master.grad = grad.float()
            else:
                torch._foreach_add_([p.grad for p in self.stepped], grads)
            for p in self.parameters:
                p.grad = None
        return loss.item()

    def update(self):
        logp_of, loss = {}, 0.0
        self.computed_tokens = 0
        for rows in self.micro_batches():
            loss += self.backward(rows, logp_of)
        norm = self.clip()
        self.optimizer.step()
        if self.args.precision == "master":
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, self.stepped)
        self.optimizer.zero_grad(set_to_none=True)
        logp_mean = torch.cat(list(logp_of.values())).double().mean().item()
        for row in self.rows:
            if row.logp_old is None:
                row.logp_old = logp_of[id(row)]
        return {"loss": loss, "logp_mean": logp_mean, "grad_norm": norm}

    def clip(self):
        """Clips the gradient; returns the norm before."""
        if not self.args.exact_norm:
            return torch.nn.utils.clip_grad_norm_(self.stepped, GRADIENT_CLIP).item()
        # The oracle adds up in f64: torch's f32 norm of 135 M numbers is off by some 1e-5.
        squares = [p.grad.double().square().sum() for p in self.stepped]
        norm = torch.stack(squares).sum().sqrt()
        torch.nn.utils.clip_grads_with_norm_(self.stepped, GRADIENT_CLIP, norm)
        return norm.item()

    def warm_up(self):
        """One micro-batch whose gradient is thrown away."""
        self.backward(self.micro_batches()[-1], {})
        self.optimizer.zero_grad(set_to_none=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="Hugging Face folder")
    parser.add_argument("--rollouts", required=True, help="JSON file of rollouts")
    parser.add_argument("--precision", choices=["f32", "autocast", "master"], default="master")
    parser.add_argument(
        "--logits",
        choices=["full", "actions"],
        default="full",
        help="full: the model's own logits of every token; actions: of response tokens only",
    )
    parser.add_argument("--exact-norm", action="store_true", help="the gradient's norm in f64")
    parser.add_argument("--micro-batch-rows", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    dtype = torch.bfloat16 if args.precision == "master" else torch.float32
    model = load_model(args.model, dtype, args.threads).train()
    rows, rollouts = read_rows(args.rollouts)
    step = Step(model, rows, args)
    step.warm_up()
    updates, seconds = [], []
    for _ in range(args.repetitions):
        update, took = timed(step.update)
        updates.append(update)
        seconds.append(took)
    rates = [rollouts / s for s in seconds]
    row_tokens = sum(len(row.ids) for row in rows)
    print(
        json.dumps(
            {
                "tool": "transformers",
                "work": "train_step",
                "model": args.model,
                "precision": args.precision,
                "logits": args.logits,
                "micro_batch_rows": args.micro_batch_rows,
                "threads": args.threads,
                "rollouts": rollouts,
                "calls": len(rows),
                "row_tokens": row_tokens,
                "computed_tokens": step.computed_tokens,
                "action_tokens": step.action_tokens,
                "seconds": seconds,
                "rollouts_per_second": rates,
                "median_rollouts_per_second": median(rates),
                "median_tokens_per_second": median(row_tokens / s for s in seconds),
                "peak_memory_bytes": peak_memory(),
                "loss": [u["loss"] for u in updates],
                "logp_mean": [u["logp_mean"] for u in updates],
                "grad_norm": [u["grad_norm"] for u in updates],
                "versions": versions(),
            }
        )
    )


if __name__ == "__main__":
    main()
