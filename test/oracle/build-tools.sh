#!/bin/bash
# Compiles guest/*.c into static helpers under $ORACLE_DIR/bin (only what changed).
set -eu
. "$(dirname "$(readlink -f "$0")")/env.sh"
exec 7> "$ORACLE_DIR/tools.lock"; flock 7
for c in "$ORACLE_SRC"/guest/*.c; do
	b=$ORACLE_DIR/bin/$(basename "$c" .c)
	[ "$b" -nt "$c" ] || { gcc -O2 -Wall -static -o "$b.tmp" "$c" && mv "$b.tmp" "$b"; }
done
