"""Processes of tests: forked from one that has imported what takes seconds, once for all of them."""

import multiprocessing

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    ["transformers", "escultor.train.runs", "transformers.models.llama.modeling_llama"]
)
