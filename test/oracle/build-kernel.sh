#!/bin/bash
# Fetches Debian's own kernel into $ORACLE_DIR/kernels/stock, unpacked, with its
# modules beside it.  Nothing is installed; a second run does nothing.
# usage: build-kernel.sh [stock]        STOCK_PKG=linux-image-... names another package
set -eu
. "$(dirname "$(readlink -f "$0")")/env.sh"
[ "${1:-stock}" = stock ] || { echo "usage: $0 [stock]" >&2; exit 2; }
d=$ORACLE_DIR/kernels/stock
exec 8> "$ORACLE_DIR/kernel.lock"; flock 8
[ -e "$d/vmlinuz" ] && exit 0

# Whatever linux-image-amd64 depends on today (written against 6.1.0-53).
newest() { apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -1; }
STOCK_PKG=${STOCK_PKG:-$(newest)}
if [ -z "$STOCK_PKG" ] && [ "$(id -u)" = 0 ]; then
	apt-get -q update # a machine without package lists
	STOCK_PKG=$(newest)
fi
[ -n "$STOCK_PKG" ] || { echo "build-kernel: error: linux-image-amd64 is unknown here; run 'apt-get update' as root, or set STOCK_PKG" >&2; exit 1; }

t=$(mktemp -d "$ORACLE_DIR/scratch/deb.XXXX")
trap 'rm -rf "$t"' EXIT
chmod 755 "$t" # apt downloads as its own user
(cd "$t" && apt-get -q -o Acquire::Retries=3 download "$STOCK_PKG" && dpkg -x ./*.deb root)
rm -rf "$d"; mkdir -p "$d"
mv "$t"/root/lib "$d/"
mv "$t"/root/boot/config-* "$d/config"
ls "$d/lib/modules" > "$d/release"
PATH=$PATH:/sbin:/usr/sbin depmod -b "$d" "$(cat "$d/release")"
mv "$t"/root/boot/vmlinuz-* "$d/vmlinuz" # last: it marks the whole as complete
