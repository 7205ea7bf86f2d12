#!/usr/bin/env bash
# Start Triton with one model: `triton-entrypoint [OPTION OF TRITONSERVER...]`. The environment may set MODEL and
# MODEL_REPOSITORY.
#
# An engine of several GPUs is one tritonserver for each, in TensorRT-LLM's leader mode: this script starts itself again
# under mpirun. Rank 0 serves. The other ranks do their share of each step inside the call that loads the model.
set -euo pipefail

model=${MODEL:-tensorrt_llm}
repository=${MODEL_REPOSITORY:-/model_repository}
config=$repository/$model/config.pbtxt

fail() {
    echo "triton-entrypoint: $1" >&2
    exit 1
}

# Print the number of GPUs that share the model: 1 if the configuration has no such parameter, as the CPU engine's.
tensor_parallel_size() {
    local entry
    entry=$(sed 's/#.*//' "$config" | tr -d '[:space:]' | grep -o 'key:"tensor_parallel_size"[^}]*' || true)
    [[ -n $entry ]] || { echo 1; return; }
    [[ $entry =~ string_value:\"([1-9][0-9]*)\" ]] || fail "$config: tensor_parallel_size is no positive number"
    echo "${BASH_REMATCH[1]}"
}

[[ -r $config ]] || fail "$config cannot be read"
[[ -r $repository/$model/1/engine/manifest.json ]] || fail "$repository/$model holds no engine; build it first"
size=$(tensor_parallel_size)
rank=${OMPI_COMM_WORLD_RANK:-}

if ((size > 1)) && [[ -z $rank ]]; then
    # By default mpirun binds each of two ranks to one core, and Triton has many threads.
    exec mpirun --bind-to none -n "$size" "$0" "$@"
fi

# Load only this model of the repository, with its configuration as it is written.
arguments=(
    "--model-repository=$repository"
    --model-control-mode=explicit
    "--load-model=$model"
    --disable-auto-complete-config
    --allow-grpc=false
    --allow-sagemaker=false
    --allow-vertex-ai=false
)
if ((${rank:-0} > 0)); then
    exec tritonserver "${arguments[@]}" --allow-http=false --allow-metrics=false
fi

# The APIs that change a running server or read its memory are closed to everybody: they require a header whose value is
# a line break, which HTTP cannot send. So no secret is needed.
closed=$'model-repository,shared-memory,trace,logging:closed=\n'
exec tritonserver "${arguments[@]}" \
    --http-address=0.0.0.0 --http-port=8000 --metrics-address=0.0.0.0 --metrics-port=8002 --exit-timeout-secs=30 \
    "--http-restricted-api=$closed" "--grpc-restricted-protocol=$closed" "$@"
