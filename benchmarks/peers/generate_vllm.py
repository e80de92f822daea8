"""vLLM's offline engine on the work of the binary `generate`; prints one line of JSON.

Prefix caching is on, so samples of a prompt and later turns find what was computed; it is
emptied before each repetition. The engine lives in this process, so that its memory counts.
"""

import os

# Read when vLLM is imported.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import generation  # noqa: E402

import torch  # noqa: E402
import vllm  # noqa: E402

DTYPES = {"f32": "float32", "bf16": "bfloat16"}


def main():
    args = generation.arguments(__doc__)
    prompts, later = generation.read(args.prompts)
    longest = len(prompts[0]) + sum(len(turn[0]) for turn in later)
    torch.set_num_threads(args.threads)
    model = vllm.LLM(
        args.model,
        dtype=DTYPES[args.dtype],
        enforce_eager=True,
        enable_prefix_caching=True,
        max_model_len=longest + (1 + len(later)) * args.tokens + 16,
        skip_tokenizer_init=True,
        disable_log_stats=True,
    )

    def play(_):
        # Without a seed of its own: on CPUs vLLM cannot rewind a request's generator, which it
        # does wherever a prompt is prefilled in parts.
        model.reset_prefix_cache()
        settings = vllm.SamplingParams(
            temperature=1.0,
            max_tokens=args.tokens,
            ignore_eos=True,
            n=1 if later else args.samples,
            detokenize=False,
        )
        made = 0
        copies = args.samples if later else 1
        rows = [list(prompt) for prompt in prompts for _ in range(copies)]
        for turn in range(1 + len(later)):
            given = [{"prompt_token_ids": row} for row in rows]
            answered = model.generate(given, settings, use_tqdm=False)
            for number, (row, answer) in enumerate(zip(rows, answered)):
                made += sum(len(output.token_ids) for output in answer.outputs)
                row.extend(answer.outputs[0].token_ids)
                if turn < len(later):
                    row.extend(later[turn][number // copies])
        return made

    versions = {"vllm": vllm.__version__, "torch": torch.__version__}
    generation.measure("vllm", args, play, versions=versions)


if __name__ == "__main__":
    main()
