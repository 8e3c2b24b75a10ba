# Sourced by every script here.  Sets the places the oracle uses.
# ORACLE_DIR  kernel, helper binaries, scratch (about 500 MiB); never committed
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
ORACLE_SRC=$here
ORACLE_DIR=${ORACLE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/keyway-oracle}
export ORACLE_SRC ORACLE_DIR
mkdir -p "$ORACLE_DIR"/{kernels,bin,scratch}
