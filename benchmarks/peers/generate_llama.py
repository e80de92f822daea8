"""llama.cpp on the work of the binary `generate` at batch 1; prints one line of JSON.

One request at a time to its server, in this process: it serves one prompt and one sample.
"""

import json

import generation

import xllamacpp


def main():
    args = generation.arguments(__doc__)
    prompts, later = generation.read(args.prompts)
    if later or len(prompts) != 1 or args.samples != 1:
        raise SystemExit("llama.cpp is measured on one prompt, one sample and one turn")
    settings = xllamacpp.CommonParams()
    settings.model.path = args.model
    settings.n_ctx = len(prompts[0]) + args.tokens + 64
    settings.n_parallel = 1
    settings.cpuparams.n_threads = args.threads
    settings.cpuparams_batch.n_threads = args.threads
    settings.warmup = True
    server = xllamacpp.Server(settings)

    def play(repetition):
        answer = server.handle_completions(
            {
                "prompt": prompts[0],
                "n_predict": args.tokens,
                "ignore_eos": True,
                "cache_prompt": False,
                "temperature": 1.0,
                "top_k": 0,
                "top_p": 1.0,
                "min_p": 0.0,
                "seed": repetition,
            }
        )
        answer = json.loads(answer) if isinstance(answer, (str, bytes)) else answer
        return answer["timings"]["predicted_n"]

    generation.measure("llama", args, play)


if __name__ == "__main__":
    main()
