"""A peer that any Python runs: an embedding is the text's length, then ones, at unit length; WIDTH numbers of them."""

import json
import os
import sys
from typing import Any

import numpy as np


def answered(asked: dict[str, Any]) -> dict[str, Any]:
    if "weights" in asked:
        if asked["backend"] == "broken":
            raise SystemExit("no such backend")
        return {"runs": asked["backend"], "versions": {}}
    if asked["do"] == "take":
        return {"texts": len(asked["texts"])}
    if asked["do"] == "vectors":
        rows = np.ones((len(asked["texts"]), int(os.environ.get("WIDTH", "16"))), np.float32)
        rows[:, 0] = [len(text) for text in asked["texts"]]
        np.save(asked["to"], rows / np.linalg.norm(rows, axis=1, keepdims=True))
        return {"to": asked["to"]}
    if asked["do"] == "all":
        return {"seconds": 3.0, "cpu": 6.0}
    return {"seconds": [0.25] * len(asked["places"]), "cpu": 0.5}


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answered(json.loads(line))) + "\n")
        sys.stdout.flush()
