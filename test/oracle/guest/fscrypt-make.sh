# Runs in the guest: makes an ext4 on /dev/vda with the directories, keys and files
# of /host/job (package oracle tells what is there).
set -e
. /host/job/options # MKFS
mke2fs -q -t ext4 -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 -O encrypt,stable_inodes $MKFS /dev/vda
mkdir /m
mount -t ext4 -o noatime /dev/vda /m
while read -r key; do
	fskey add /m $key
done < /host/job/keys
while IFS=$'\t' read -r dir policy; do
	mkdir -p "/m/$dir"
	[ -z "$policy" ] || fskey set "/m/$dir" "$policy"
done < /host/job/directories
cd /m
kwpat batch < /host/job/files
while IFS=$'\t' read -r path size; do
	truncate -s "$size" "$path"
done < /host/job/sizes
while IFS=$'\t' read -r words; do
	eval "$words"
done < /host/job/commands
cd /
umount /m
e2fsck -fn /dev/vda > /host/out/fsck 2>&1 || { cat /host/out/fsck; exit 1; }
echo PASS
