import os

# Nothing is reported to anyone. These two report their use to their makers unless told not to before they are imported:
# onnxruntime (1.29 and later), and the hub's client with each download.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
