"""Writes batches and the results of verl's core_algos for them to rl.json.

    python3 tests/golden/rl.py

Advantages and returns of ten estimators, seven policy losses with their gradients and metrics, four
estimators of KL, three ways to aggregate and the value loss, in f64. The batches are generated
from seeds; some have holes in their masks (tokens of tool results), one has a group of one, one a
single row.

Two changes of verl are excluded, where Leyden follows the earlier form (b178a3cd): REINFORCE++ over
masks with holes, whose returns now cross the holes, and `seq-mean-token-sum-norm`, which now also
divides by the number of rows.
"""

import argparse
import json
import pathlib
from importlib.metadata import version

import numpy as np
import torch

CLIP_LOW, CLIP_HIGH, DUAL_CLIP, VALUE_CLIP = 0.2, 0.28, 3.0, 0.5
AGGREGATIONS = ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"]
LOSSES = [("vanilla", mode) for mode in AGGREGATIONS] + [
    ("gspo", "seq-mean-token-mean"),
    ("cispo", "token-mean"),
    ("gpg", "token-mean"),
    ("geo_mean", "token-mean"),
]


def batch(seed, rows, tokens, groups, holes):
    generator = torch.Generator().manual_seed(seed)
    normal = lambda scale=1.0: scale * torch.randn(rows, tokens, generator=generator, dtype=torch.float64)
    whole = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))
    mask = torch.zeros(rows, tokens, dtype=torch.float64)
    for row in range(rows):
        length = whole(2, tokens + 1)
        mask[row, :length] = 1
        if holes and length > 4:
            start = whole(1, length - 2)
            mask[row, start : start + 2] = 0
    rewards = torch.zeros(rows, tokens, dtype=torch.float64)
    for row in range(rows):
        last = int(mask[row].nonzero().max())
        rewards[row, last] = float(torch.rand(1, generator=generator, dtype=torch.float64).round(decimals=3))
    old = -normal().abs() - 0.1
    new = old + normal(0.3)
    return {
        "seed": seed,
        "rows": rows,
        "tokens": tokens,
        "group": [row % groups for row in range(rows)],
        "mask": mask,
        "token_rewards": rewards * mask,
        "logp_old": old,
        "logp_new": new,
        "logp_ref": old + normal(0.2),
        "values": normal(0.5),
        "advantage_for_loss": normal() * mask,
        "vpreds": normal(0.5),
        "value_returns": normal(0.7),
    }


def advantages(algos, config, found):
    rewards, mask = found["token_rewards"], found["mask"]
    index = np.array([str(group) for group in found["group"]])
    given = {"token_level_rewards": rewards, "response_mask": mask}
    estimators = {
        "grpo": lambda: algos.compute_grpo_outcome_advantage(**given, index=index),
        "grpo_no_std": lambda: algos.compute_grpo_outcome_advantage(
            **given, index=index, norm_adv_by_std_in_grpo=False
        ),
        "rloo": lambda: algos.compute_rloo_outcome_advantage(**given, index=index),
        "opo": lambda: algos.compute_opo_outcome_advantage(**given, index=index),
        "reinforce_plus_plus_baseline": lambda: (
            algos.compute_reinforce_plus_plus_baseline_outcome_advantage(**given, index=index)
        ),
        "grpo_passk": lambda: algos.compute_grpo_passk_outcome_advantage(
            **given, index=index, config=config()
        ),
    }
    holes = bool((mask[:, 1:] > mask[:, :-1]).any())
    for gamma in () if holes else (1.0, 0.95):
        estimators[f"reinforce_plus_plus_gamma{gamma:g}"] = lambda gamma=gamma: (
            algos.compute_reinforce_plus_plus_outcome_advantage(**given, config=config(gamma=gamma))
        )
    for gamma, lam in ((1.0, 1.0), (0.99, 0.95)):
        estimators[f"gae_gamma{gamma}_lambda{lam}"] = lambda gamma=gamma, lam=lam: (
            algos.compute_gae_advantage_return(rewards, found["values"], mask, gamma, lam)
        )
    made, returns = {}, {}
    for name, estimator in estimators.items():
        try:
            made[name], returns[name] = estimator()
        except (ValueError, AssertionError) as error:
            made[name] = returns[name] = {"error": f"{type(error).__name__}: {error}"}
    return made, returns


def policy_losses(algos, actor, found):
    made = {}
    for name, mode in LOSSES:
        new = found["logp_new"].clone().requires_grad_()
        loss, metrics = algos.get_policy_loss_fn(name)(
            old_log_prob=found["logp_old"],
            log_prob=new,
            advantages=found["advantage_for_loss"],
            response_mask=found["mask"],
            loss_agg_mode=mode,
            config=actor,
        )
        loss.backward()
        made[f"{name}/{mode}"] = {"loss": loss.item(), "grad_logp_new": new.grad, "metrics": metrics}
    return made


def numbers(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: numbers(entry) for key, entry in value.items()}
    return value


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=pathlib.Path(__file__).parent / "rl.json", type=pathlib.Path)
    arguments = parser.parse_args()
    from verl.trainer.config import AlgoConfig
    from verl.trainer.ppo import core_algos as algos
    from verl.workers.config import ActorConfig

    actor = ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio=CLIP_LOW,
        clip_ratio_low=CLIP_LOW,
        clip_ratio_high=CLIP_HIGH,
        clip_ratio_c=DUAL_CLIP,
    )
    cases = []
    for seed, rows, tokens, groups, holes in [
        (200, 4, 6, 1, False),
        (201, 8, 9, 2, False),
        (202, 8, 12, 2, True),
        (203, 12, 14, 3, True),
        (204, 5, 7, 2, False),
        (205, 1, 5, 1, False),
    ]:
        case = batch(seed, rows, tokens, groups, holes)
        if seed == 204:
            case["group"][-1] = 9
        case["advantages"], case["returns"] = advantages(algos, AlgoConfig, case)
        case["policy_loss"] = policy_losses(algos, actor, case)
        case["kl"] = {
            name: algos.kl_penalty(case["logp_new"], case["logp_ref"], name)
            for name in ("kl", "abs", "mse", "low_var_kl")
        }
        case["agg"] = {
            mode: algos.agg_loss(case["advantage_for_loss"], case["mask"], mode).item()
            for mode in AGGREGATIONS
        }
        vpreds, returns = case.pop("vpreds"), case.pop("value_returns")
        loss, clipped = algos.compute_value_loss(
            vpreds, returns, case["values"], case["mask"], VALUE_CLIP
        )
        case["value_loss"] = {
            "vpreds": vpreds,
            "returns": returns,
            "cliprange_value": VALUE_CLIP,
            "loss": loss.item(),
            "clipfrac": clipped.item(),
        }
        cases.append(numbers(case))
    made_with = f"verl {version('verl')}, float64, torch {torch.__version__}"
    arguments.out.write_text(json.dumps({"made_with": made_with, "cases": cases}) + "\n")


if __name__ == "__main__":
    main()
