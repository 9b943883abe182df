"""What `submillion serve` is measured against: a run's adapter behind FastAPI, with transformers and PEFT alone.

`python -m benchmarks.plain_service RUN` prints its address, and answers the same requests, one at a time.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from peft import AutoPeftModelForSequenceClassification
from pydantic import BaseModel
from transformers import AutoTokenizer


class Asked(BaseModel):
    """The service's request."""

    texts: list[str]
    run: str


def app_of(run: Path) -> FastAPI:
    """Return the app that answers with a run's adapter, in float32, merged: as fast as it is without Submillion."""
    labels = json.loads((run / "labels.json").read_text())
    adapter = AutoPeftModelForSequenceClassification.from_pretrained(run / "adapter", num_labels=len(labels))
    model: Any = adapter.merge_and_unload().eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "adapter")
    app = FastAPI()

    @app.post("/v1/predict")
    @torch.inference_mode()
    def predict(asked: Asked) -> dict[str, Any]:
        inputs = tokenizer(asked.texts, truncation=True, max_length=128, padding=True, return_tensors="pt")
        probs = torch.softmax(model(**inputs).logits, -1).tolist()
        return {"predictions": [dict(zip(labels, each, strict=True)) for each in probs]}

    return app


if __name__ == "__main__":
    app = app_of(Path(sys.argv[1]))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}/"}), flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])
