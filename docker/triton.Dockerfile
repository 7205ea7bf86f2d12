# The GPU host's image. It converts the checkpoint, builds the engine and serves it, because an engine only runs with the
# versions that built it. NVIDIA's image with our build step in its own environment: the image's Python packages, which
# TensorRT-LLM is pinned to, stay as they are. Build from the repository's root: make images
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

# Python 3.12 as in NVIDIA's image, so that the wheels fit there; the last RUN would fail if they did not.
FROM ${PYTHON_IMAGE} AS packages
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY build_engine build_engine
COPY frontend frontend
RUN pip install --no-cache-dir --target /packages -c constraints.txt ".[build]"

FROM ${TRITON_IMAGE}
# Images after 26.07 may lack this backend: TensorRT-LLM has removed engines.
RUN test -d /opt/tritonserver/backends/tensorrtllm || { echo "this image serves no TensorRT-LLM engines"; exit 1; }
RUN python3 -m venv --without-pip /opt/build_engine
COPY --from=packages /packages /opt/build_engine/packages
RUN cd /opt/build_engine \
    && echo "$PWD/packages" > "$(bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/packages.pth" \
    && bin/python -m build_engine build --help > /dev/null
COPY --chmod=755 docker/triton-entrypoint.sh /usr/local/bin/triton-entrypoint
# The user `triton-server` of NVIDIA's image.
USER 1000:1000
WORKDIR /
# Read-only containers write to /tmp alone. A user id without a name needs USER, or PyTorch fails to find one.
ENV HOME=/tmp USER=triton-server HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
EXPOSE 8000 8002
ENTRYPOINT ["/usr/local/bin/triton-entrypoint"]
