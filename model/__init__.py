import os

# onnxruntime (1.29 and later) reports its use to its makers unless it is told not to before it is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
