from app.threads import asked_threads, limit_native_threads

limit_native_threads(asked_threads())  # before any module of the service loads numpy, FAISS or the tokenizer
