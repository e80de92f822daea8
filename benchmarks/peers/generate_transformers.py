"""transformers' `generate` on the work of the binary `generate`; prints one line of JSON.

As fast as it goes out of the box: no gradient, no filter on the distribution, no token that
ends a response (so no processor that forbids it), one `generate` call for all samples. In
later turns it goes on from its own cache.
"""

import generation
from common import DTYPES, load_model, versions

import torch
from transformers import DynamicCache

SAMPLED = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0)


def main():
    args = generation.arguments(__doc__)
    model = load_model(args.model, DTYPES[args.dtype], args.threads).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    prompts, later = generation.read(args.prompts)
    prompts = torch.tensor(prompts)

    @torch.inference_mode()
    def play(repetition):
        torch.manual_seed(repetition)
        made = 0
        # The samples of a prompt are rows of their own from the start of a conversation: a
        # cache that is handed in cannot be multiplied by `num_return_sequences`.
        rows = prompts if not later else prompts.repeat_interleave(args.samples, 0)
        more = {"num_return_sequences": args.samples} if not later else {}
        cache = DynamicCache(config=model.config) if later else None
        for turn in range(1 + len(later)):
            length = rows.shape[1]
            mask = torch.ones_like(rows)
            rows = model.generate(
                rows,
                attention_mask=mask,
                past_key_values=cache,
                max_new_tokens=args.tokens,
                **more,
                **SAMPLED,
            )
            made += rows[:, length:].numel()
            if turn < len(later):
                follows = torch.tensor(later[turn]).repeat_interleave(args.samples, 0)
                rows = torch.cat([rows, follows], 1)
        return made

    greedy = []
    if args.greedy:
        with torch.inference_mode():
            mask = torch.ones_like(prompts)
            ids = model.generate(
                prompts, attention_mask=mask, max_new_tokens=args.greedy, do_sample=False
            )
        greedy = ids[:, prompts.shape[1] :].tolist()
    generation.measure("transformers", args, play, greedy, versions())


if __name__ == "__main__":
    main()
