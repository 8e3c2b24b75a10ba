#!/bin/bash
# The kernel's dm-crypt under cryptsetup, over NBD exports that hold LUKS volumes, all
# in one boot.
# usage: kernel-luks-on-nbd.sh URI PASSPHRASE ITEM...
#   URI   of any of the exports, which are all at one address
#   ITEM  NAME:SEED           open export NAME, check that its data has the patterns SEED,
#                             SEED+1, SEED+2 and write SEED+10, SEED+11, SEED+12
#         NAME:SEED:TYPE:CIPHER:BITS:SECTOR
#                             format it first, and only write
# The patterns are 64 KiB at the start, 12 KiB from 4 KiB before 1 MiB, and the last
# 64 KiB of the data.
set -eu
. "$(dirname "$(readlink -f "$0")")/lib.sh"
[ $# -ge 3 ] || { sed -n '2,13p' "$0"; exit 2; }
nbd_endpoint "$1"; pass=$2; shift 2
job=$(mktemp); trap 'rm -f "$job"; for p in ${cleanup[@]+"${cleanup[@]}"}; do kill "$p" 2>/dev/null || :; done' EXIT
cat > "$job" <<'E'
. /host/guest.sh
modprobe nbd 2>/dev/null || true; modprobe dm-crypt 2>/dev/null || true
patterns() { # check|write SEED
	local size; size=$(blockdev --getsize64 /dev/mapper/c)
	kwpat $1 /dev/mapper/c 0 65536 $2 mix
	kwpat $1 /dev/mapper/c $((1048576 - 4096)) 12288 $(($2 + 1)) mix
	kwpat $1 /dev/mapper/c $((size - 65536)) 65536 $(($2 + 2)) mix
}
for item in "$@"; do
	cipher=; IFS=: read -r name seed typ rest <<< "$item"
	note "$item"
	nbd-client -name "$name" 10.0.2.2 "$NBD_PORT" /dev/nbd0 -timeout 60 > /tmp/nbd 2>&1 || { cat /tmp/nbd; exit 1; }
	if [ -n "$typ" ]; then
		sector=${rest##*:}; rest=${rest%:*}; bits=${rest##*:}; cipher=${rest%:*}
		set_sector=; [ "$typ" = luks1 ] || set_sector="--sector-size $sector"
		printf %s "$PASS" | cryptsetup luksFormat -q --type $typ --cipher "$cipher" --key-size $bits $set_sector --offset 8192 \
			--pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file - /dev/nbd0
	fi
	printf %s "$PASS" | cryptsetup open --type luks --key-file - /dev/nbd0 c
	[ -n "$typ" ] || patterns check "$seed"
	patterns write $((seed + 10))
	settle
	patterns check $((seed + 10))
	dmsetup remove c; nbd-client -d /dev/nbd0 > /dev/null
done
echo PASS
E
vm -k "$KERNEL" -t "${LIMIT:-300}" -f "$ACC/guest.sh" "${NBD_ARGS[@]}" -e PASS="$pass" "$job" "$@"
