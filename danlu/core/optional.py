"""Optional packages: which extra installs them, and the one sentence that says so."""

EXTRAS = {
    "tensorboard": "tracking",
    "wandb": "tracking",
    "trackio": "tracking",
    "bitsandbytes": "quant",
    "torchao": "quant",
    "deepspeed": "scale",
    "sentencepiece": "tokens",
    "fastapi": "web",
    "uvicorn": "web",
    "lm_eval": "eval",
}


def install_command(package: str | None) -> str:
    """What to type to get a missing package."""
    top = (package or "").partition(".")[0]
    return f"pip install 'danlu[{EXTRAS[top]}]'" if top in EXTRAS else f"pip install {top}"
