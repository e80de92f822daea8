"""A whole step of TRL's GRPO on the work of the binary `grpo_step`; prints one line of JSON.

TRL's own loop around `transformers.generate` on the CPU: one update per batch, no KL, no
reference model, no dropout. Prompts are handed over as token ids, so that nothing is
tokenised in between; no token ends a response.
"""

import json
import statistics
import tempfile
import time

import generation
from common import DTYPES, load_model, versions

import trl
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback


class Trainer(trl.GRPOTrainer):
    """Reads a prompt as the number of a list of token ids."""

    prompts = ()

    def _tokenize_prompts(self, prompts):
        return [list(self.prompts[int(prompt)]) for prompt in prompts], None, {}


class Clock(TrainerCallback):
    """Seconds of whole steps: TRL generates after a step has begun."""

    def __init__(self):
        self.seconds, self.started = [], 0.0

    def on_step_begin(self, *_, **__):
        self.started = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self.started)


def even(completion_ids, **_):
    """The reward: whether a response begins with an even token."""
    return [float(ids[0] % 2 == 0) for ids in completion_ids]


def main():
    args = generation.arguments(__doc__)
    prompts, later = generation.read(args.prompts)
    if later:
        raise SystemExit("a step of GRPO is measured on prompts alone")
    model = load_model(args.model, DTYPES[args.dtype], args.threads)
    model.generation_config.eos_token_id = None
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = len(prompts) * args.samples
    with tempfile.TemporaryDirectory() as folder:
        config = trl.GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=1,
            num_generations=args.samples,
            max_completion_length=args.tokens,
            max_steps=args.warm_up + args.repetitions,
            learning_rate=1e-6,
            max_grad_norm=1.0,
            beta=0.0,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            epsilon=0.2,
            epsilon_high=0.3,
            gradient_checkpointing=False,
            generation_kwargs={"eos_token_id": None},
            shuffle_dataset=False,
            save_strategy="no",
            report_to="none",
            logging_strategy="no",
            disable_tqdm=True,
        )
        clock = Clock()
        copies = [{"prompt": str(i)} for i in range(len(prompts))]
        trainer = Trainer(
            model=model,
            args=config,
            reward_funcs=even,
            train_dataset=Dataset.from_list(copies),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.prompts = prompts
        trainer.train()
    seconds = clock.seconds[args.warm_up :]
    rates = [rows / s for s in seconds]
    result = {
        "tool": "trl",
        "work": "grpo_step",
        "model": args.model,
        "dtype": args.dtype,
        "threads": args.threads,
        "prompts": len(prompts),
        "samples": args.samples,
        "new_tokens": args.tokens,
        "seconds": seconds,
        "rollouts_per_second": rates,
        "median_rollouts_per_second": statistics.median(rates),
        "peak_memory_bytes": generation.peak_memory(),
        "versions": {"trl": trl.__version__, **versions()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
