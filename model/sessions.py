"""How is a graph run? One way of opening it, for those who serve it and those who check that it may be served."""

from pathlib import Path

import onnxruntime as ort

from model.manifest import ArtifactError

SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""onnxruntime adds and normalises slower in one kernel than in two: 1.1 times the computing of a whole int8 pass."""


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    """A graph, ready to run in so many threads.

    Raises:
        ArtifactError: it is none that onnxruntime can run.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A thread that spins for its next task takes the CPU from tokenizer, FAISS and other requests
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS)
    except Exception as error:  # onnxruntime raises its own classes, with no common public base
        raise ArtifactError(f"{path} is not a graph that onnxruntime can run: {error}") from error
