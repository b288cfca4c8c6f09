"""The rows that the benchmarks of training learn from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def questions(count: int) -> list[dict[str, Any]]:
    """So many XQuAD questions with their paragraph, spread over all articles, as rows to train on: from
    `xquad/xquad.en.json` under the folder HARNESS_SHARED_DATA, by default ../shared/data."""
    folder = Path(os.environ.get("HARNESS_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    articles = json.loads((folder / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]
    asked = [(p["context"], qa) for article in articles for p in article["paragraphs"] for qa in p["qas"]]
    return [
        {
            "id": qa["id"],
            "messages": [{"role": "user", "content": f"{context}\n\n{qa['question']}"}],
            "completion": qa["answers"][0]["text"],
        }
        for context, qa in asked[:: len(asked) // count][:count]
    ]
