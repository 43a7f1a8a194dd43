"""In a process of its own: what llama.cpp makes of GGUF files. Reads a JSON list of jobs on standard input,
writes the list of their results; a process that loads several models one after another starts only once."""

import json
import os
import sys
from urllib.request import Request, urlopen

import xllamacpp


def run(job):
    settings = xllamacpp.CommonParams()
    settings.model.path = job["path"]
    settings.n_ctx, settings.n_parallel, settings.warmup, settings.verbosity = 256, 1, False, 0
    settings.cpuparams.n_threads, settings.cache_type_k, settings.cache_type_v = 1, 0, 0
    settings.flash_attn_type = 0  # all in float32
    server = xllamacpp.Server(settings)

    def post(path, **body):
        request = Request(server.listening_address + path, json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        return json.load(urlopen(request, timeout=60))

    found = {}
    if "ids" in job:
        # An answer is left out of the reply unless it is whole characters: the token that is drawn is
        # forced.
        forced = {
            "n_predict": 1,
            "logit_bias": [[job["forced"], 1000.0]],
            "n_probs": 500,
            "cache_prompt": False,
        }
        reply = post("/completion", prompt=job["ids"], temperature=0, **forced)
        found["logps"] = {t["id"]: t["logprob"] for t in reply["completion_probabilities"][0]["top_logprobs"]}
    if "texts" in job:
        found["tokens"] = [
            post("/tokenize", content=t, **job.get("flags", {}))["tokens"] for t in job["texts"]
        ]
    return found


results = [run(job) for job in json.load(sys.stdin)]
print("\n" + json.dumps(results), flush=True)
os._exit(0)
