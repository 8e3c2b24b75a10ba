# Runs in the guest: mounts the images of /host/job (package oracle tells what is
# there), adds their master keys, and leaves names and contents in /host/out.
set -e
modprobe dm-crypt 2>/dev/null || true
for job in /host/job/*; do
	i=${job##*/}
	read -r kind device < "$job/mount"
	if [ -s "$job/table" ]; then
		dmsetup create "top$i" < "$job/table"
		device=/dev/mapper/top$i
	fi
	mkdir -p "/m$i"
	mount -t "$kind" -o ro "$device" "/m$i"
	while read -r key; do
		fskey add "/m$i" $key # a key, or a key and its descriptor
	done < "$job/keys"
	cd "/m$i"
	mapfile -d '' dirs < "$job/list"
	[ ${#dirs[@]} = 0 ] || find "${dirs[@]}" -printf '%y\t%i\t%s\t%p\0' > "/host/out/$i.names"
	touch "/host/out/$i.names"
	cd /
	kwread "/m$i" < "$job/ranges" > "/host/out/$i.data"
	umount "/m$i"
	[ ! -s "$job/table" ] || dmsetup remove "top$i"
done
echo PASS
