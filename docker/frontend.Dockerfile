# The frontend alone: no torch, no CUDA, no compiler. Build from the repository's root:
#   docker build -f docker/frontend.Dockerfile -t mixtral-frontend .
# Mount the published engine directory (tokenizer and manifest), and give Triton's address:
#   docker run --read-only -v $PWD/model_repository:/model_repository:ro -p 8000:8000 mixtral-frontend \
#       --engine-dir /model_repository/openvino/1/engine --triton-url http://triton:8000
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY build_engine build_engine
COPY frontend frontend
# Only xgrammar's compiled core is used; its Python part requires torch.
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt ".[frontend,traces]" \
    && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt --no-deps xgrammar

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/venv /opt/venv
RUN useradd --system --uid 1000 --no-create-home frontend
USER frontend
WORKDIR /tmp
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
EXPOSE 8000
# /health needs no API key. The certificate is not verified: the request does not leave the container.
HEALTHCHECK --interval=5s --timeout=3s --start-period=120s \
    CMD ["/opt/venv/bin/python", "-c", "import os, ssl, urllib.request; urllib.request.urlopen(('https' if os.environ.get('FRONTEND_SSL_CERTFILE') else 'http') + '://127.0.0.1:8000/health', context=ssl._create_unverified_context())"]
ENTRYPOINT ["/opt/venv/bin/python", "-m", "frontend", "--host", "0.0.0.0"]
