"""Serve a model behind the recording gateway, ask it with the openai client, and rate its answer.

python examples/01_serve_and_rate.py FOLDER
python examples/01_serve_and_rate.py FOLDER --upstream http://127.0.0.1:11434/v1 --upstream-model qwen3:4b
"""

import argparse
import json
import subprocess
import sys

import httpx2
import openai

from escultor import FeedbackStore

parser = argparse.ArgumentParser()
parser.add_argument("folder", help="where the store is kept")
parser.add_argument("--model", default="escultor-base", help="a model folder, without an upstream")
parser.add_argument("--upstream", help="an OpenAI-compatible server")
parser.add_argument("--upstream-model", help="its name for the model")
options = parser.parse_args()

store = f"{options.folder}/store"
source = ["--model", options.model]
if options.upstream:
    source = ["--upstream", options.upstream, "--upstream-model", options.upstream_model]
command = [sys.executable, "-m", "escultor", "serve", "--store", store, "--port", "0", *source]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as gateway:
    try:
        url = gateway.stdout.readline().split()[-1]  # listening on http://127.0.0.1:PORT/v1
        client = openai.OpenAI(base_url=url, api_key="none")
        answer = client.chat.completions.create(
            model="escultor",
            messages=[{"role": "user", "content": "Say hello."}],
            user="maria",
            max_tokens=16,
        )
        print(answer.choices[0].message.content)
        httpx2.post(f"{url}/feedback", json={"id": answer.id, "value": True}).raise_for_status()
    finally:
        gateway.terminate()

events = FeedbackStore(store).get_feedback()
print(json.dumps({"answer": answer.id, "feedback": [[event.target, event.value] for event in events]}))
