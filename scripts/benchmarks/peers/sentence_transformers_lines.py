"""sentence-transformers as a peer: a JSON object a line in, one out.

It is run by the Python of another environment, imports nothing of this project, and nothing of this project imports it.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CPUS = Path("/proc/cpuinfo")
PACKAGES = ("sentence-transformers", "transformers", "torch", "onnxruntime", "optimum", "optimum-onnx")


def quantisation(cpus: Path = CPUS) -> str:
    """The configuration that sentence-transformers' documentation gives this processor."""
    try:
        flags = set(cpus.read_text("utf-8").split())
    except OSError:
        flags = set()
    known = ("avx512_vnni", "avx512f", "avx2")
    found = next((flag for flag in known if flag in flags), "arm64")
    return {"avx512f": "avx512"}.get(found, found)


def load(weights: str, backend: str, threads: int, scratch: str) -> tuple[Any, str]:
    """The model, and which file or weights it runs."""
    import torch  # noqa: TID251
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    torch.set_num_threads(threads)
    if backend == "torch":
        return SentenceTransformer(weights, device="cpu"), "fp32 weights"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    how: dict[str, Any] = {"provider": "CPUExecutionProvider", "session_options": options}
    exported, file = Path(scratch) / "exported", "onnx/model.onnx"
    if not (exported / file).exists():
        shutil.copytree(weights, exported)
        plain = SentenceTransformer(weights, backend="onnx", device="cpu", model_kwargs=how | {"export": True})
        plain.save_pretrained(str(Path(scratch) / "saved"))
        _take(Path(scratch) / "saved", exported / file)
    if backend == "onnx-int8":
        kind, plainly = quantisation(), how | {"file_name": file}
        file = f"onnx/model_int8_{kind}.onnx"
        plain = SentenceTransformer(str(exported), backend="onnx", device="cpu", model_kwargs=plainly)
        export_dynamic_quantized_onnx_model(plain, kind, str(Path(scratch) / "quantised"))
        _take(Path(scratch) / "quantised", exported / file)
    model = SentenceTransformer(str(exported), backend="onnx", device="cpu", model_kwargs=how | {"file_name": file})
    return model, file


def _take(saved: Path, to: Path) -> None:
    """Take the graph alone: what is saved beside it says less of the model than its own folder."""
    to.parent.mkdir(exist_ok=True)
    shutil.copyfile(next(saved.rglob("*.onnx")), to)


def main() -> None:
    """Answer until standard input ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer

    def answer(value: dict[str, Any]) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    wish = json.loads(sys.stdin.readline())
    batch = wish.pop("batch")
    model, runs = load(**wish)
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    answer({"runs": runs, "versions": versions})

    def encode(texts: Sequence[str]) -> Any:
        return model.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)

    texts: list[str] = []
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "take":
            texts = asked["texts"]
            answer({"texts": len(texts)})
        elif asked["do"] == "vectors":
            import numpy as np

            np.save(asked["to"], encode(asked["texts"]).astype(np.float32))
            answer({"to": asked["to"]})
        elif asked["do"] == "all":
            began, computed = time.perf_counter(), time.process_time()
            encode(texts)
            answer({"seconds": time.perf_counter() - began, "cpu": time.process_time() - computed})
        else:  # one at a time
            seconds, computed = [], time.process_time()
            for place in asked["places"]:
                began = time.perf_counter()
                encode([texts[place]])
                seconds.append(time.perf_counter() - began)
            answer({"seconds": seconds, "cpu": time.process_time() - computed})


if __name__ == "__main__":
    main()
