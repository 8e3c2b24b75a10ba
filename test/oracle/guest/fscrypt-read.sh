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
	# A directory whose ciphers this kernel lacks is named, and not entered.
	(cd "/m$i"; find . -mindepth 1 -printf '%y\t%i\t%s\t%P\0' > "/host/out/$i.names" 2>> /host/out/log) || true
	kwread "/m$i" < "$job/ranges" > "/host/out/$i.data"
	umount "/m$i"
	[ ! -s "$job/table" ] || dmsetup remove "top$i"
done
echo PASS
