"""A server that answers as vLLM does, over a real socket and a tiny model: completions by ids, adapters, weights."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from danlu.models.load import ModelConfig, build_model

Fault = Callable[[str, dict], tuple[int, object] | None]


class SmallVLLM:
    """`with SmallVLLM() as server`: `seen` are path, JSON and key of each request; `fault` may answer first."""

    def __init__(self) -> None:
        self.models: dict[str, PreTrainedModel | PeftModel] = {"tiny": base()}
        self.seen: list[tuple[str, dict, str | None]] = []
        self.fault: Fault = lambda path, tree: None
        self.one_by_one = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.http.handle_error = lambda *given: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self) -> "SmallVLLM":
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *given: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def paths(self) -> list[str]:
        """What was asked for, completions left out."""
        return [path for path, _, _ in self.seen if path not in ("/v1/completions", "/v1/models")]

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """Hands requests over to `answer`."""
        here = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply({})

            def do_POST(self) -> None:
                self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def reply(self, tree: dict) -> None:
                with here.one_by_one:
                    here.seen.append((self.path, tree, self.headers.get("Authorization")))
                    status, said = here.fault(self.path, tree) or here.answer(self.path, tree)
                body = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *given: object) -> None:
                pass

        return Handler

    def answer(self, path: str, tree: dict) -> tuple[int, object]:
        """As vLLM."""
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
        if path == "/v1/load_lora_adapter":
            if tree["lora_name"] in self.models:
                return 400, {"error": "has already been loaded"}
            self.models[tree["lora_name"]] = PeftModel.from_pretrained(base(), tree["lora_path"]).eval()
            return 200, b"Success"
        if path == "/v1/unload_lora_adapter":
            del self.models[tree["lora_name"]]
            return 200, b"Success"
        if path == "/collective_rpc" and tree["method"] == "reload_weights":
            folder = tree["kwargs"]["weights_path"]
            self.models["tiny"] = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            return 200, {"results": [None]}
        if path == "/reset_prefix_cache":
            return 200, b""
        if path == "/v1/completions" and tree["model"] in self.models:
            return 200, {"object": "text_completion", "choices": [self.choice(tree, n) for n in range(tree["n"])]}
        return 404, {"error": "not found"}

    @torch.no_grad()
    def choice(self, tree: dict, index: int) -> dict:
        """One answer, with the log-probabilities that it was drawn by."""
        model, ids, logps = self.models[tree["model"]], list(tree["prompt"]), []
        draw = torch.Generator().manual_seed(tree["seed"] + index)
        finish = "length"
        for _ in range(tree["max_tokens"]):
            likely = (model(input_ids=torch.tensor([ids])).logits[0, -1] / tree["temperature"]).log_softmax(-1)
            token = int(torch.multinomial(likely.exp(), 1, generator=draw))
            ids.append(token)
            logps.append(likely[token].item())
            if token in tree["stop_token_ids"]:
                finish = "stop"
                break
        written = ids[len(tree["prompt"]) :]
        told = {"token_ids": written} if tree.get("return_token_ids") else {}
        logprobs = {"token_logprobs": logps, "tokens": [str(token) for token in written]}
        return {"index": index, "text": "", "finish_reason": finish, "stop_reason": None, "logprobs": logprobs} | told


def base() -> PreTrainedModel:
    """The model that runs begin from."""
    return build_model(ModelConfig(path="builtin:tiny-llama"), torch.float32).eval()


def folders_in(folder: Path) -> list[str]:
    """Weights that lie there now."""
    return sorted(path.name for path in folder.glob("*/*"))
