"""agent-lightning's own gateway, in an environment of its own, until it is killed.

    python3 benchmarks/peers/agentlightning_gateway.py --port 8090 --model stub

The first start makes `.venv-agentlightning`. The package asks for Python 3.12 because of its
trainer; its server runs on 3.11 too, so the server's requirements are installed first, and the
package after them without its own. The server is started as its own entry point starts it: one uvicorn worker.
"""

import argparse
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-agentlightning"
PACKAGE = "agentlightning==1.0.2"
REQUIREMENTS = [
    "fastapi>=0.115",
    "httpx>=0.28",
    "omegaconf==2.3.0",
    "pydantic>=2.10",
    "structlog>=24.4",
    "uvicorn>=0.34",
]


def install():
    pip = [str(VENV / "bin" / "pip"), "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    subprocess.run([*pip, *REQUIREMENTS], check=True)
    subprocess.run([*pip, "--no-deps", "--ignore-requires-python", PACKAGE], check=True)
    (VENV / "ready").touch()


def serve(port, model):
    import logging

    import structlog
    import uvicorn
    from agentlightning.server.app import create_app

    # Its log of every request would be part of what is measured.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    default_proxy = {
        "model_name": model,
        "include_log_probs": True,
        "train": {"temperature": 1.0},
        "val": {"temperature": 0.7},
    }
    application = create_app({"key": "", "default_proxy": default_proxy})
    options = {"workers": 1, "timeout_keep_alive": 120, "log_level": "error", "access_log": False}
    uvicorn.run(application, host="127.0.0.1", port=port, **options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--install-only", action="store_true")
    options = parser.parse_args()
    if not (VENV / "ready").exists():
        install()
    if options.install_only:
        return
    python = VENV / "bin" / "python"
    if pathlib.Path(sys.prefix).resolve() != VENV.resolve():
        os.execv(python, [str(python), __file__, *sys.argv[1:]])
    serve(options.port, options.model)


if __name__ == "__main__":
    main()
