# The service: no torch, not root, models inside. Indexes are mounted at /index.
#
#   docker build -t dse .
#   docker run --rm -p 8000:8000 -v "$PWD/build/stdlib:/index:ro" dse

FROM python:3.11-slim AS build
WORKDIR /src
RUN python3 -m venv /opt/dse
COPY constraints.txt pyproject.toml README.md LICENSE NOTICE ./
# Dependencies first, so that a change of code does not fetch them again.
RUN /opt/dse/bin/python -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml','rb'))['project']['dependencies']))" > requirements.txt \
    && /opt/dse/bin/pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt
COPY app ./app
COPY model ./model
COPY index ./index
COPY scripts ./scripts
# Training code stays outside: it could not run without torch.
RUN rm -r model/training && /opt/dse/bin/pip install --no-cache-dir --no-deps . \
    && /opt/dse/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim
COPY --from=build /opt/dse /opt/dse
RUN useradd --system --uid 10001 --no-create-home dse && mkdir /index && chown dse /index
USER dse
ENV PATH=/opt/dse/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    DSE_HOST=0.0.0.0 \
    DSE_INDEX=/index
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
CMD ["dse", "serve"]
