# Stands for nvcr.io/nvidia/tritonserver:*-trtllm-python-py3: the CPU image's real tritonserver, Debian's real Open MPI, and
# the stand-ins of tests/doubles for NVIDIA's other programs. What is served comes from a CPU engine of the same checkpoint.
# The context is the checkout of the rehearsal.
ARG BASE
FROM ${BASE}
USER root
RUN apt-get update && apt-get install --yes --no-install-recommends openmpi-bin
COPY constraints.txt /opt/doubles/
# The stand-ins use parts of the product, which is installed here already.
RUN pip install --no-cache-dir -c /opt/doubles/constraints.txt "mixtral-triton[build,frontend]" \
    && pip install --no-cache-dir -c /opt/doubles/constraints.txt --no-deps xgrammar
COPY tests/doubles /opt/doubles/tests/doubles
RUN echo /opt/doubles > "$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/doubles.pth" \
    && ln -s /opt/doubles/tests/doubles/trtllm_build.py /usr/local/bin/trtllm-build \
    && ln -s /opt/doubles/tests/doubles/nvidia_smi.py /usr/local/bin/nvidia-smi \
    && install -D /opt/doubles/tests/doubles/convert_checkpoint.py /app/examples/models/core/llama/convert_checkpoint.py
COPY --chmod=755 tests/build_engine/selfcheck/tritonserver.py /opt/doubles/selfcheck/
# What `doctor` and the self check read of NVIDIA's packages, and the function that the self check calls.
RUN cd "$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && mkdir -p tensorrt_llm/layers tensorrt_llm/plugin tensorrt_llm/quantization tensorrt_llm-1.2.1.dist-info \
    && touch tensorrt_llm/__init__.py tensorrt_llm/builder.py tensorrt_llm/plugin/plugin.py \
        tensorrt_llm/layers/attention.py tensorrt_llm/quantization/__init__.py \
    && echo 'def postprocess_awq(): ...' > tensorrt_llm/layers/moe.py \
    && cp /opt/doubles/tests/doubles/nvidia_python/functional.py tensorrt_llm/quantization/ \
    && cp /opt/doubles/tests/doubles/nvidia_python/torch.py . \
    && printf 'Metadata-Version: 2.1\nName: tensorrt_llm\nVersion: 1.2.1\n' > tensorrt_llm-1.2.1.dist-info/METADATA \
    && echo stand-in > /opt/tritonserver/TRITON_VERSION
# For the backend: the CPU model's code and engine, and the class that stands before them.
COPY model_repository/openvino/1 /opt/stand_in/1
COPY tests/rehearsal/images/tensorrtllm.py /opt/stand_in/1/
RUN cd /opt/stand_in/1 && mv model.py openvino_model.py && mv tensorrtllm.py model.py \
    && mkdir /opt/tritonserver/backends/tensorrtllm
COPY --chmod=755 tests/rehearsal/images/tritonserver /opt/stand_in/bin/tritonserver
COPY --chmod=755 tests/rehearsal/images/nvidia_entrypoint.sh /opt/nvidia/nvidia_entrypoint.sh
ENV PATH=/opt/stand_in/bin:$PATH DOUBLE_CUDA=13.1 \
    DOUBLE_GPUS="NVIDIA H100 80GB HBM3:9.0:81559:80994,NVIDIA H100 80GB HBM3:9.0:81559:80994"
# As in the image: root, until the product's Dockerfile says otherwise.
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh"]
