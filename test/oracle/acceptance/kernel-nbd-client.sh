#!/bin/bash
# Attach the guest kernel's NBD client to a server on this host and exercise it:
# raw patterns, fio verification, zeroing, discard, file systems, fsck, detach,
# attach again, check that everything is still there.
# usage: kernel-nbd-client.sh URI [connections [block-size]]
#   URI  nbd://127.0.0.1[:PORT][/EXPORT], nbd+unix:///[EXPORT]?socket=PATH, or
#        nbds://127.0.0.1[:PORT][/EXPORT] with TLS_DIR (X.509; TLS_NAME is the expected host name)
# The export's content is destroyed.  FS="ext4 f2fs xfs" chooses file systems
# (xfs needs 300 MiB), FIO_BYTES the amount of random I/O.
set -eu
. "$(dirname "$(readlink -f "$0")")/lib.sh"
[ $# -ge 1 ] || { sed -n '2,10p' "$0"; exit 2; }
nbd_endpoint "$1"; conns=${2:-1} bs=${3:-512}
job=$(mktemp); trap 'rm -f "$job"; for p in ${cleanup[@]+"${cleanup[@]}"}; do kill "$p" 2>/dev/null || :; done' EXIT
cat > "$job" <<'E'
. /host/guest.sh
modprobe nbd 2>/dev/null || true
att() { nbd-client -name "$NBD_EXPORT" 10.0.2.2 "$NBD_PORT" /dev/nbd0 -b "$BS" -C "$CONNS" -timeout 60 $TLS_ARGS > /tmp/nbd 2>&1 || { cat /tmp/nbd; exit 1; }; }
att; grep size /tmp/nbd | head -1
exercise /dev/nbd0 4242
nbd-client -d /dev/nbd0 > /dev/null
note "attached again"; att
for k in ${FS:-ext4}; do last=$k; done
recheck $last /dev/nbd0 4242
nbd-client -d /dev/nbd0 > /dev/null
if dmesg | grep -E "nbd0: (.*rror|.*timed out)|I/O error|BUG|Oops"; then exit 1; fi
echo PASS
E
vm -k "$KERNEL" -t "${LIMIT:-600}" -f "$ACC/guest.sh" "${NBD_ARGS[@]}" -e CONNS="$conns" -e BS="$bs" \
	-e FS="${FS:-ext4}" -e FIO_BYTES="${FIO_BYTES:-8M}" "$job"
