"""transformers' `generate` on the work of the binary `generate`; prints one line of JSON.

As fast as it goes out of the box: no gradient, no filter on the distribution, no token that
ends a response (so no processor that forbids it), one `generate` call for all samples.
"""

import argparse
import json

from common import load_model, median, peak_memory, timed, versions

import torch

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="Hugging Face folder")
    parser.add_argument("--prompts", required=True, help="JSON file of prompts")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--greedy", type=int, default=0)
    args = parser.parse_args()

    model = load_model(args.model, DTYPES[args.dtype], args.threads).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    with open(args.prompts) as file:
        prompts = torch.tensor(json.load(file)["prompts"])
    length = prompts.shape[1]
    mask = torch.ones_like(prompts)

    @torch.inference_mode()
    def generate(tokens, **settings):
        ids = model.generate(prompts, attention_mask=mask, max_new_tokens=tokens, **settings)
        return ids[:, length:]

    greedy = generate(args.greedy, do_sample=False).tolist() if args.greedy else []
    sampled = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
    expected = len(prompts) * args.samples * args.tokens
    seconds = []
    for repetition in range(args.warm_up + args.repetitions):
        torch.manual_seed(repetition)
        ids, took = timed(
            lambda: generate(args.tokens, num_return_sequences=args.samples, **sampled)
        )
        if ids.numel() != expected:
            raise SystemExit(f"{ids.numel()} tokens were generated, not {expected}")
        if repetition >= args.warm_up:
            seconds.append(took)
    rates = [expected / s for s in seconds]
    print(
        json.dumps(
            {
                "tool": "transformers",
                "work": "generate",
                "model": args.model,
                "dtype": args.dtype,
                "threads": args.threads,
                "prompts": len(prompts),
                "samples": args.samples,
                "new_tokens": args.tokens,
                "seconds": seconds,
                "tokens_per_second": rates,
                "median_tokens_per_second": median(rates),
                "peak_memory_bytes": peak_memory(),
                "greedy": greedy,
                "versions": versions(),
            }
        )
    )


if __name__ == "__main__":
    main()
