# The whole service in one image: the supervisor in /opt/local-llm, the engines in /opt/engines.
#
#   docker build -t local-llm .                                      NVIDIA's driver 580 or newer
#   docker build -t local-llm --build-arg VARIANT=cuda129 .          driver 525 or newer
#   docker build -t local-llm --build-arg VARIANT=cpu --build-arg BASE_IMAGE=python:3.12-slim .
#
# "Docker" in README.md explains the choice, "The container" in ARCHITECTURE.md the reasons.
# No `# syntax=` line and no heredocs: those need a frontend that is fetched from a hub.
ARG BASE_IMAGE=nvcr.io/nvidia/pytorch:24.10-py3
# An image of wheels (*.whl in its root) that the machine has and no index does. Usually there are none.
ARG WHEELS_IMAGE=scratch

FROM ${WHEELS_IMAGE} AS wheels
WORKDIR /

FROM ${BASE_IMAGE} AS tools
COPY requirements/image-build.txt /tmp/
# NVIDIA's image holds pip to its own versions by PIP_CONSTRAINT.
RUN --mount=type=cache,target=/root/.cache/pip \
    PIP_CONSTRAINT='' python3 -m pip install --require-hashes --target /tools -r /tmp/image-build.txt

FROM tools AS wheel
WORKDIR /src
COPY LICENSE README.md pyproject.toml ./
COPY supervisor supervisor
COPY workers workers
RUN PYTHONPATH=/tools python3 -m hatchling build --target wheel --directory /dist

FROM ${BASE_IMAGE}
ARG VARIANT=cuda13
ARG ENGINES=vllm,transformers
# Found in the base image, or fetched by uv: vLLM needs 3.11 or newer, and the GPU's lock is for 3.12.
ARG PYTHON=3.12
# For uv while it builds, and not in the image. Its bytecode is compiled now: nobody can write it later.
ARG UV_PYTHON_INSTALL_DIR=/opt/python
ARG UV_COMPILE_BYTECODE=1
ARG UV_LINK_MODE=copy
ARG UV_NO_PROGRESS=1
ARG UV_SYSTEM_CERTS=1

# From what changes most rarely to what changes with every commit.
# vLLM for the CPU is linked against libnuma; its own message without it is about a missing operator.
# hadolint ignore=DL3008
RUN if [ "${VARIANT}" = cpu ]; then \
        apt-get update && apt-get install -y --no-install-recommends libnuma1 \
        && apt-get clean && rm -rf /var/lib/apt/lists/*; \
    fi

RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,from=tools,source=/tools,target=/tools \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=bind,source=requirements,target=/requirements \
    --mount=type=bind,source=deploy/install-engines.sh,target=/install-engines.sh \
    PATH=/tools/bin:$PATH /install-engines.sh "${VARIANT}" "${ENGINES}" "${PYTHON}"

RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,from=tools,source=/tools,target=/tools \
    --mount=type=bind,source=requirements/supervisor.txt,target=/requirements/supervisor.txt \
    /tools/bin/uv venv --python "${PYTHON}" /opt/local-llm \
    && /tools/bin/uv pip install --python /opt/local-llm --no-deps --require-hashes \
        -r /requirements/supervisor.txt

# A number that no base image has given to somebody else. Whatever a program wants to keep goes to /cache.
RUN groupadd --gid 10001 local-llm \
    && useradd --uid 10001 --gid 10001 --no-log-init --home-dir /cache --shell /usr/sbin/nologin local-llm \
    && install -d -o local-llm -g local-llm /cache \
    && install -d /models

# HOME and USER: some programs ask for them, and a container may run as a user that has no name here.
# LD_LIBRARY_PATH, PIP_CONSTRAINT, TRITON_*: NVIDIA's image points them at the torch, the versions and the
# assembler that it brings itself; with another torch they break.
ENV PATH=/opt/local-llm/bin:$PATH \
    HOME=/cache USER=local-llm \
    XDG_CACHE_HOME=/cache XDG_CONFIG_HOME=/cache/config XDG_DATA_HOME=/cache/data XDG_STATE_HOME=/cache/state \
    HF_HOME=/cache/huggingface VLLM_CACHE_ROOT=/cache/vllm VLLM_CONFIG_ROOT=/cache/config/vllm \
    TRITON_CACHE_DIR=/cache/triton TORCHINDUCTOR_CACHE_DIR=/cache/torchinductor TORCH_HOME=/cache/torch \
    CUDA_CACHE_PATH=/cache/cuda FLASHINFER_WORKSPACE_BASE=/cache NUMBA_CACHE_DIR=/cache/numba \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64 \
    PIP_CONSTRAINT= TRITON_PTXAS_PATH= TRITON_CUOBJDUMP_PATH= TRITON_NVDISASM_PATH= \
    PYTHONDONTWRITEBYTECODE=1 \
    LOCAL_LLM_HOST=0.0.0.0 LOCAL_LLM_MODELS_DIR=/models \
    LOCAL_LLM_ENGINES__VLLM__PYTHON=/opt/engines/bin/python \
    LOCAL_LLM_ENGINES__TRANSFORMERS__PYTHON=/opt/engines/bin/python

# Our own code, last: 3 MB, in seconds. Both environments, since the workers' half runs in the engines'.
RUN --mount=type=bind,from=tools,source=/tools,target=/tools \
    --mount=type=bind,from=wheel,source=/dist,target=/dist \
    for environment in /opt/engines /opt/local-llm; do \
        UV_COMPILE_BYTECODE=0 \
        /tools/bin/uv pip install --no-cache --no-deps --python "$environment" /dist/*.whl \
        && "$environment/bin/python" -m compileall -q "$environment"/lib/python*/site-packages/local_llm* \
        || exit 1; \
    done

USER 10001:10001
WORKDIR /cache
EXPOSE 8000
STOPSIGNAL SIGTERM
# Whatever is loaded, or loading. http.client, since urllib would go through a proxy of the environment.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=6 CMD [ \
    "python", "-Ic", \
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); \
     c.request('GET', '/health'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["local-llm"]
CMD ["serve"]

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="local-llm-interface" \
      org.opencontainers.image.description="One OpenAI-compatible URL for a folder of Hugging Face models and one GPU." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
