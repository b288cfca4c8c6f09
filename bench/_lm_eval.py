"""Runs inside the peer's own environment: times lm-evaluation-harness on the prompts that it is sent, line by line.

Usage: python _lm_eval.py MODEL_FOLDER DTYPE; then on standard input, one JSON object a line:
{"prompts": [...], "new_tokens": 24, "batch": 16} -> {"seconds": ..., "cpu_seconds": ..., "texts": [...]}.
Loading is not timed. `min_new_tokens` forbids an early end, so that every answer has its full length.
"""

import contextlib
import json
import sys
import time

replies = sys.stdout
with contextlib.redirect_stdout(sys.stderr):
    import lm_eval
    import transformers
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    folder, dtype = sys.argv[1:3]
    model = HFLM(pretrained=folder, dtype=dtype, device="cpu", batch_size=8, trust_remote_code=False)
    versions = {"lm_eval": lm_eval.__version__, "transformers": transformers.__version__}
    print(json.dumps(versions), file=replies, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        model.batch_size_per_gpu = job["batch"]
        length = job["new_tokens"]
        settings = {"until": [], "max_gen_toks": length, "min_new_tokens": length, "do_sample": False}
        requests = [
            Instance("generate_until", {}, (prompt, dict(settings)), index)
            for index, prompt in enumerate(job["prompts"])
        ]
        begun, cpu = time.perf_counter(), time.process_time()
        texts = model.generate_until(requests, disable_tqdm=True)
        took = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - cpu}
        print(json.dumps({**took, "texts": texts}), file=replies, flush=True)
