# The service: no torch, not root, models inside; what changes is mounted at /index (docs/operations.md, "Containers").
#
#   docker build -t dse .
#   docker run --rm -p 127.0.0.1:8000:8000 --read-only --tmpfs /tmp -v "$PWD/build/stdlib:/index:ro" -e DSE_READ_ONLY=1 dse

FROM python:3.11-slim AS build
WORKDIR /src
RUN python3 -m venv /opt/dse
COPY constraints.txt pyproject.toml README.md LICENSE NOTICE ./
# Of the package, separated by spaces: milvus for an index there, parquet for building from such files.
ARG EXTRAS=""
# Dependencies first, so that a change of code does not fetch them again.
RUN /opt/dse/bin/python -c "import sys, tomllib; project = tomllib.load(open('pyproject.toml','rb'))['project']; print('\n'.join(project['dependencies'] + [line for extra in sys.argv[1:] for line in project['optional-dependencies'][extra]]))" $EXTRAS > requirements.txt \
    && /opt/dse/bin/pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt
COPY app ./app
COPY model ./model
COPY index ./index
COPY scripts ./scripts
# Training code stays outside: it could not run without torch.
RUN rm -r model/training && /opt/dse/bin/pip install --no-cache-dir --no-deps . \
    && /opt/dse/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim
LABEL org.opencontainers.image.title="dse" \
      org.opencontainers.image.description="Sentence-pair retrieval: search, similarity and reranking over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/dse /opt/dse
RUN groupadd --system --gid 10001 dse && useradd --system --uid 10001 --gid dse --no-create-home dse && mkdir /index && chown dse:dse /index
# By number, so that an orchestrator that refuses root can see that this is not root.
USER 10001:10001
ENV PATH=/opt/dse/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    DSE_HOST=0.0.0.0 \
    DSE_INDEX=/index
WORKDIR /tmp
VOLUME /index
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10m \
    CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('DSE_PORT') or 8000), timeout=2); c.request('GET', '/readyz'); raise SystemExit(int(c.getresponse().status != 200))"]
CMD ["dse", "serve"]
