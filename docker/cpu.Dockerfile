# Triton with the OpenVINO engine, for machines without a GPU: PyPI wheels, laid out as in NVIDIA's image, so that it has
# the same entry point. Build from the repository's root: make images PROFILE=cpu
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE}
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY build_engine build_engine
COPY frontend frontend
# Of nvidia-pytriton only its tritonserver is used, which needs none of the dependencies.
RUN pip install --no-cache-dir -c constraints.txt ".[cpu]" \
    && pip install --no-cache-dir -c constraints.txt --no-deps nvidia-pytriton
# The Python backend expects its stub in its own directory; the wheel has one for each version of Python.
RUN wheel="$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pytriton/tritonserver" \
    && python="$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" \
    && mkdir -p /opt/tritonserver/backends/python \
    && ln -s "$wheel/bin" /opt/tritonserver/bin \
    && ln -s "$wheel/backends/python/"* "$wheel/python_backend_stubs/$python/triton_python_backend_stub" \
        /opt/tritonserver/backends/python/
COPY --chmod=755 docker/triton-entrypoint.sh /usr/local/bin/triton-entrypoint
RUN useradd --system --uid 1000 --no-create-home triton-server
USER 1000:1000
WORKDIR /tmp
ENV PATH=/opt/tritonserver/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
EXPOSE 8000 8002
ENTRYPOINT ["/usr/local/bin/triton-entrypoint"]
