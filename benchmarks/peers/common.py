"""What the peers that load transformers share: threads, the model, the clock.

Loaded only inside the peers' own environment.
"""

import os
import statistics
import time

# Before torch starts its threads: spinning workers take the cores from everything else.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch  # noqa: E402
import transformers  # noqa: E402


DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def load_model(folder, dtype, threads):
    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def versions():
    return {"torch": torch.__version__, "transformers": transformers.__version__}


def timed(work):
    started = time.perf_counter()
    value = work()
    return value, time.perf_counter() - started


median = statistics.median
