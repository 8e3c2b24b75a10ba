// kwread: bytes of many files, one after the other on standard output.
//
//   kwread DIR     lines "PATH<TAB>OFFSET<TAB>LENGTH" on stdin, paths below DIR
//
// A range ends at the end of its file at the latest: then kwread says so and
// fails, for what follows would not be where it is looked for.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static char line[8192], buf[65536];
	if (argc != 2 || chdir(argv[1]))
		return fprintf(stderr, "kwread: where?\n"), 2;
	while (fgets(line, sizeof line, stdin)) {
		char *path = strtok(line, "\t"), *o = strtok(0, "\t"), *l = strtok(0, "\n");
		if (!path || !o || !l)
			return fprintf(stderr, "kwread: a line is not of three fields\n"), 2;
		long long off = atoll(o), left = atoll(l);
		int fd = open(path, O_RDONLY);
		ssize_t n = 0;
		if (fd < 0)
			n = -1;
		for (; n >= 0 && left > 0; left -= n, off += n) {
			n = pread(fd, buf, left < (long long)sizeof buf ? left : (long long)sizeof buf, off);
			if (n == 0)
				return fprintf(stderr, "kwread: %s ends at byte %lld\n", path, off), 1;
			if (n > 0 && fwrite(buf, 1, n, stdout) != (size_t)n)
				n = -1;
		}
		if (n < 0)
			return fprintf(stderr, "kwread: %s at byte %lld: %s\n", path, off, strerror(errno)), 1;
		close(fd);
	}
	return fflush(stdout) ? 1 : 0;
}
