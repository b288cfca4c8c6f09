"""Compare prompting, retrieval and fine-tuning of one base model on one held-out set, with evidence."""

import os

# Set before any library that would read them: nothing is sent anywhere unless the user asks for it.
for _name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("STREAMLIT_BROWSER_GATHER_USAGE_STATS", "false")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

__version__ = "0.1.0"
