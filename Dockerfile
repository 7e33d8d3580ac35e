# syntax=docker/dockerfile:1.7
#
#   docker build --target cpu -t hotswap:cpu .
#   docker build --target gpu -t hotswap:gpu .
#   docker run -p 8000:8000 -e HOTSWAP_ADMIN_KEY=$(openssl rand -hex 32) -v hotswap:/var/lib/hotswap hotswap:cpu
#
# The container binds every address, so the gateway wants an admin key before it opens its admin API.
# A GPU host needs the NVIDIA container toolkit (`--gpus all`); CUDA's libraries come with the Python packages.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# --- what both devices have in common: the user, the folders, the settings --------------------------------------
FROM ${PYTHON_IMAGE} AS runtime
# libnuma: vLLM's CPU build loads it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 hotswap \
    && install --directory --owner hotswap --group hotswap /app /var/lib/hotswap
ENV HOTSWAP_HOME=/var/lib/hotswap \
    PIP_NO_CACHE_DIR=1 \
    PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER hotswap

# --- packages, then the project, then the default base: each a layer that the next one's changes leave alone -----
FROM runtime AS cpu-packages
USER root
# g++ compiles the kernels for quantised bases below; the image itself needs no compiler.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
USER hotswap
COPY --chown=hotswap requirements requirements
COPY --chown=hotswap scripts scripts
COPY --chown=hotswap pyproject.toml ./
RUN python -m scripts.set_up --device cpu --no-project

FROM runtime AS gpu-packages
COPY --chown=hotswap requirements requirements
COPY --chown=hotswap scripts scripts
COPY --chown=hotswap pyproject.toml ./
RUN python -m scripts.set_up --device gpu --no-project

FROM cpu-packages AS cpu-app
COPY --chown=hotswap . .
RUN python -m scripts.set_up --device cpu

FROM gpu-packages AS gpu-app
COPY --chown=hotswap . .
RUN python -m scripts.set_up --device gpu

# --- the images ---------------------------------------------------------------------------------------------------
FROM runtime AS gpu
USER root
# Triton compiles a small launcher for each of its kernels when it first runs.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
USER hotswap
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=gpu-app --chown=hotswap /app /app
COPY --from=gpu-app --chown=hotswap /var/lib/hotswap /var/lib/hotswap
VOLUME /var/lib/hotswap
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
ENTRYPOINT ["hotswap"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]

# Last, so that a build that names no target gives this one.
FROM runtime AS cpu
COPY --from=cpu-app --chown=hotswap /app /app
COPY --from=cpu-app --chown=hotswap /var/lib/hotswap /var/lib/hotswap
VOLUME /var/lib/hotswap
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
ENTRYPOINT ["hotswap"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
