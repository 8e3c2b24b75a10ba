// fskey: the kernel's ioctls of fscrypt, with keys and policies in hex.
//
//   fskey add MOUNT RAWKEY [DESCRIPTOR]   a master key; with a descriptor for policies v1
//   fskey set DIR POLICY                  struct fscrypt_policy_v1 or _v2, as ioctls pass it
//   fskey get PATH                        policy and nonce
//
// Arguments are bytes of test keys: a command line is no place for real ones.
#include <errno.h>
#include <fcntl.h>
#include <linux/fscrypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "fskey: %s: %s\n", what, strerror(errno));
	exit(1);
}

static size_t unhex(const char *s, unsigned char *to, size_t room)
{
	size_t n = strlen(s) / 2;
	if (strlen(s) % 2 || n > room) {
		fprintf(stderr, "fskey: %zu digits are too many, or odd\n", strlen(s));
		exit(2);
	}
	for (size_t i = 0; i < n; i++)
		if (sscanf(s + 2 * i, "%2hhx", to + i) != 1) {
			fprintf(stderr, "fskey: byte %zu is not hexadecimal\n", i);
			exit(2);
		}
	return n;
}

static void hex(const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		printf("%02x", ((const unsigned char *)p)[i]);
}

static int at(const char *path)
{
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		die(path);
	return fd;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 2 ? argv[1] : "";
	if (!strcmp(verb, "add") && (argc == 4 || argc == 5)) {
		struct {
			struct fscrypt_add_key_arg a;
			unsigned char raw[FSCRYPT_MAX_KEY_SIZE];
		} k = {0};
		k.a.raw_size = unhex(argv[3], k.raw, sizeof k.raw);
		k.a.key_spec.type = FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER;
		if (argc == 5) {
			k.a.key_spec.type = FSCRYPT_KEY_SPEC_TYPE_DESCRIPTOR;
			unhex(argv[4], k.a.key_spec.u.descriptor, FSCRYPT_KEY_DESCRIPTOR_SIZE);
		}
		if (ioctl(at(argv[2]), FS_IOC_ADD_ENCRYPTION_KEY, &k.a))
			die("add");
	} else if (!strcmp(verb, "set") && argc == 4) {
		unsigned char policy[sizeof(struct fscrypt_policy_v2)];
		unhex(argv[3], policy, sizeof policy);
		if (ioctl(at(argv[2]), FS_IOC_SET_ENCRYPTION_POLICY, policy))
			die(argv[2]);
	} else if (!strcmp(verb, "get") && argc == 3) {
		struct fscrypt_get_policy_ex_arg p = {.policy_size = sizeof p.policy};
		unsigned char nonce[16];
		int fd = at(argv[2]);
		if (ioctl(fd, FS_IOC_GET_ENCRYPTION_POLICY_EX, &p) || ioctl(fd, FS_IOC_GET_ENCRYPTION_NONCE, nonce))
			die(argv[2]);
		hex(&p.policy, p.policy_size);
		putchar(' ');
		hex(nonce, sizeof nonce);
		putchar('\n');
	} else {
		fprintf(stderr, "fskey: its source tells its use\n");
		return 2;
	}
	return 0;
}
