#!/bin/sh
# Writes every lock anew from its .in file: exact versions with hashes, for Python 3.11 to 3.13.
# Versions already locked stay as they are; `requirements/lock.sh --upgrade` takes the newest ones.
# Install a lock with `pip install --no-deps --require-hashes -r`: it is complete, and older pips trip over extras
# when they resolve it again.
# Needs uv, which requirements/dev.txt brings: run it with .venv/bin on PATH.
set -eu
cd "$(dirname "$0")/.."

lock() {
    directory=$1 name=$2
    shift 2
    (cd "$directory" && uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
        --no-emit-index-url --no-emit-find-links "$@" "$name.in" --output-file "$name.txt") >/dev/null
    echo "$directory/$name.txt"
}

lock layers/dependencies requirements "$@"
lock layers/compiler requirements "$@"
lock requirements run -c ../layers/dependencies/requirements.txt "$@"
lock requirements dev "$@"
lock requirements sam "$@"
lock benchmarks requirements "$@"
lock local requirements-aws "$@"
lock tests/clients/newest requirements "$@"
lock tests/clients/older requirements "$@"
lock tests/python_client/newest requirements "$@"
lock tests/python_client/oldest requirements "$@"
lock tests/tokenizers requirements --no-deps "$@"

for directory in layers/compiler examples/react-vite tests/clients/newest tests/clients/older tests/tokenizers; do
    (cd "$directory" &&
        npm install --package-lock-only --omit-lockfile-registry-resolved --silent --no-audit --no-fund)
    echo "$directory/package-lock.json"
done
