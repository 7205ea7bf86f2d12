#!/usr/bin/env bash
# Start Triton with one engine: `triton-entrypoint [OPTION OF TRITONSERVER...]`. The environment may set MODEL,
# MODEL_REPOSITORY and NVIDIA_ENTRYPOINT.
#
# An engine of several GPUs is one tritonserver for each, in TensorRT-LLM's leader mode: this script starts itself again
# under mpirun. Rank 0 serves. The other ranks do their share of each step inside the call that loads the model.
set -euo pipefail

# The entry point of NVIDIA's image checks the driver and the GPUs, sets the libraries of CUDA's compatibility mode, and
# then runs the command that it is given: this script again.
nvidia_entrypoint=${NVIDIA_ENTRYPOINT-/opt/nvidia/nvidia_entrypoint.sh}
if [[ -x $nvidia_entrypoint ]]; then
    NVIDIA_ENTRYPOINT='' exec "$nvidia_entrypoint" "$0" "$@"
fi

model=${MODEL:-tensorrt_llm}
repository=${MODEL_REPOSITORY:-/model_repository}
config=$repository/$model/config.pbtxt

fail() {
    echo "triton-entrypoint: $1" >&2
    exit 1
}

# Print a parameter of the configuration: `parameter NAME PATTERN WHAT DEFAULT`. The CPU engine has none of those here.
parameter() {
    local entry
    entry=$(sed 's/#.*//' "$config" | tr -d '[:space:]' | grep -o "key:\"$1\"[^}]*" || true)
    [[ -n $entry ]] || { echo "$4"; return; }
    [[ $entry =~ string_value:\"($2)\" ]] || fail "$config: $1 is no $3"
    echo "${BASH_REMATCH[1]}"
}

# Run this script once for each GPU, and return when all have ended. On SIGTERM and SIGINT, mpirun kills its ranks after
# one second, and running answers need longer. So mpirun gets no signal, only the tritonserver of rank 0 does; the other
# ranks end with it. `setsid` keeps Ctrl-C of a terminal from mpirun.
run_ranks() {
    server_pid=$(mktemp)
    trap stop_server TERM INT
    # By default mpirun binds each of two ranks to one core, and Triton has many threads.
    SERVER_PID=$server_pid setsid mpirun --bind-to none -n "$size" "$0" "$@" &
    mpirun=$!
    # A signal interrupts `wait`, so it is called until mpirun has ended.
    while kill -0 "$mpirun" 2>/dev/null; do
        wait "$mpirun" || true
    done
    rm -f "$server_pid"
    wait "$mpirun"
}

# While rank 0 has not started there is no answer to wait for, and mpirun may kill the ranks.
stop_server() {
    local server
    server=$(<"$server_pid")
    kill -TERM "${server:-$mpirun}" || true
}

[[ -r $config ]] || fail "$config cannot be read"
[[ -r $repository/$model/1/engine/manifest.json ]] || fail "$repository/$model holds no engine; build it first"
size=$(parameter tensor_parallel_size '[1-9][0-9]*' 'positive number' 1)  # GPUs that share the model
with_log_probs=$(parameter gather_generation_logits 'true|false' '"true" or "false"' false)
rank=${OMPI_COMM_WORLD_RANK:-}

if ((size > 1)) && [[ -z $rank ]]; then
    run_ranks "$@"
    exit
fi

# Load only this engine of the repository, with its configuration as it is written.
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

# The model that computes alternatives to each token is loaded by the rank that serves.
[[ $with_log_probs == false ]] || arguments+=("--load-model=${model}_log_probs")

# For stop_server: `exec` keeps the process id.
[[ -z ${SERVER_PID:-} ]] || echo "$$" >"$SERVER_PID"

# The APIs that change a running server or read its memory are closed to everybody: they require a header whose value is
# a line break, which HTTP cannot send. So no secret is needed.
closed=$'model-repository,shared-memory,trace,logging:closed=\n'
exec tritonserver "${arguments[@]}" \
    --http-address=0.0.0.0 --http-port=8000 --metrics-address=0.0.0.0 --metrics-port=8002 --exit-timeout-secs=30 \
    "--http-restricted-api=$closed" "--grpc-restricted-protocol=$closed" "$@"
