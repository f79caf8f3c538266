#!/bin/bash
# From the workplace where this project was made, so that a clone can be judged anywhere (as root on Debian 12).
#
# with-docker.sh WORKDIR COMMAND [ARG ...]
# Runs COMMAND with a real Docker Engine and Compose v2 that need no installation: the engine is unpacked
# from Debian packages into WORKDIR, and ends with COMMAND. Root only. About 10 s the first time, 400 MB.
# Needs: apt-get install -y --no-install-recommends mmdebstrap iptables iproute2
#
# COMMAND finds DOCKER_HOST, DOCKER_CONFIG, DOCKER_BUILDKIT and BASE_IMAGE set. With NETWORK=build (default)
# the engine has no bridge, and builds use `docker build --network host`; with NETWORK=run it lives in a
# network namespace of its own with loopback, bridges and service-name DNS, from which nothing leaves.
# Build first, then run: both use the same WORKDIR.
set -euo pipefail
HERE=$PWD
WORK=$(mkdir -p "$1" && cd "$1" && pwd); shift
ROOT=$WORK/debs/root
export DOCKER_HOST=unix://$WORK/docker.sock DOCKER_CONFIG=$WORK/config DOCKER_BUILDKIT=1
export BASE_IMAGE=${BASE_IMAGE:-localhost/ci-base:latest}

unpack_engine() {
    mkdir -p "$WORK"/debs/{lists/partial,cache/archives/partial}
    cd "$WORK/debs"
    apt-get -qq -o APT::Sandbox::User=root download docker.io containerd runc tini
    # Compose v2 comes from the next Debian release; it needs no newer libc than this one has.
    sed -E 's/bookworm(-updates|-security)?/trixie\1/g' /etc/apt/sources.list.d/debian.sources > next.sources
    local next=(-o "Dir::Etc::sourcelist=$PWD/next.sources" -o Dir::Etc::sourceparts=/dev/null
                -o "Dir::State::lists=$PWD/lists" -o "Dir::Cache=$PWD/cache" -o APT::Sandbox::User=root)
    apt-get "${next[@]}" -qq update
    apt-get "${next[@]}" -qq download docker-compose
    for deb in *.deb; do dpkg -x "$deb" root; done
    mkdir -p "$DOCKER_CONFIG/cli-plugins"
    ln -sf "$ROOT"/usr/libexec/docker/cli-plugins/* "$DOCKER_CONFIG/cli-plugins/"
}

make_base_image() {  # Debian with Python 3.11 and this machine's pip settings and certificates
    nice mmdebstrap --quiet --variant=minbase \
        --include=python3,python3-pip,python3-venv,python-is-python3,ca-certificates \
        --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
        --customize-hook='copy-in /etc/pip.conf /etc' \
        --customize-hook='copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs' \
        bookworm "$WORK/base.tar"
    docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        "$WORK/base.tar" "$BASE_IMAGE" > /dev/null
}

start_engine() {
    dockerd -H "$DOCKER_HOST" --data-root "$WORK/data" --exec-root "$WORK/exec" \
        --pidfile "$WORK/docker.pid" --storage-driver overlay2 "$@" >> "$WORK/dockerd.log" 2>&1 &
    ENGINE=$!
    trap 'kill $ENGINE; wait $ENGINE || true' EXIT
    for _ in $(seq 80); do docker info > /dev/null 2>&1 && return; sleep 0.25; done
    tail -20 "$WORK/dockerd.log" >&2; return 1
}

[ -x "$ROOT/usr/sbin/dockerd" ] || unpack_engine
export PATH=$ROOT/usr/bin:$ROOT/usr/sbin:$PATH
cd "$HERE"

if [ "${NETWORK:-build}" = run ]; then
    export WORK ROOT; export -f start_engine
    exec unshare --net --mount --propagation private \
        bash -euc 'ip link set lo up; start_engine; "$@"' with-docker "$@"
fi
start_engine --bridge=none --iptables=false --ip6tables=false
docker image inspect "$BASE_IMAGE" > /dev/null 2>&1 || make_base_image
"$@"
