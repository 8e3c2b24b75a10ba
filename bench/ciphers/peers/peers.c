// peers: data-unit ciphers of C libraries, measured on request. It reads a line,
// answers with a line, and ends with its input.
//
//	list                                          PEER VERSION MODE, one a line, then a lone dot
//	sum PEER MODE UNIT UNITS                      FNV-1a of the ciphertext of a known pattern
//	rate PEER MODE encrypt|decrypt UNIT UNITS SECONDS   bytes a second of processor time
//
// Each data unit is what the libraries' interfaces make of it: one call that sets
// the initialisation vector, its number as 16 bytes little-endian, and one that
// transforms. Contexts and keys are set up once.
#include <errno.h>
#include <gcrypt.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct {
	void *encrypt, *decrypt;
} keyed;

typedef struct {
	const char *name;
	const char *(*version)(void);
	int (*open)(keyed *k, const char *mode, const uint8_t *key); // 0: does not have the mode
	void (*crypt)(void *context, int decrypt, uint8_t *dst, const uint8_t *src, size_t unit, size_t units, uint64_t dun);
	void (*close)(keyed *k);
} peer;

static void fatal(const char *what)
{
	fprintf(stderr, "peers: %s\n", what);
	exit(1);
}

static void number(uint8_t iv[16], uint64_t dun)
{
	memset(iv, 0, 16);
	memcpy(iv, &dun, 8); // the machine is little-endian, as all that we build for
}

// OpenSSL.

static const char *ossl_version(void) { return OpenSSL_version(OPENSSL_VERSION_STRING); }

static void ossl_close(keyed *k)
{
	EVP_CIPHER_CTX_free(k->encrypt);
	EVP_CIPHER_CTX_free(k->decrypt);
}

static int ossl_open(keyed *k, const char *mode, const uint8_t *key)
{
	EVP_CIPHER *c = EVP_CIPHER_fetch(NULL, mode, NULL);
	if (!c)
		return 0;
	uint8_t iv[16] = {0};
	k->encrypt = EVP_CIPHER_CTX_new();
	k->decrypt = EVP_CIPHER_CTX_new();
	int ok = EVP_CipherInit_ex(k->encrypt, c, NULL, key, iv, 1) && EVP_CipherInit_ex(k->decrypt, c, NULL, key, iv, 0);
	EVP_CIPHER_CTX_set_padding(k->encrypt, 0);
	EVP_CIPHER_CTX_set_padding(k->decrypt, 0);
	EVP_CIPHER_free(c);
	if (!ok)
		ossl_close(k);
	return ok;
}

static void ossl_crypt(void *context, int decrypt, uint8_t *dst, const uint8_t *src, size_t unit, size_t units, uint64_t dun)
{
	(void)decrypt;
	uint8_t iv[16];
	int n;
	for (size_t i = 0; i < units; i++) {
		number(iv, dun + i);
		if (!EVP_CipherInit_ex(context, NULL, NULL, NULL, iv, -1) ||
		    !EVP_CipherUpdate(context, dst + i * unit, &n, src + i * unit, (int)unit))
			fatal("OpenSSL fails");
	}
}

// libgcrypt.

static const char *gcry_version(void) { return gcry_check_version(NULL); }

static void gcry_close(keyed *k) { gcry_cipher_close(k->encrypt); }

static int gcry_open(keyed *k, const char *mode, const uint8_t *key)
{
	static const struct {
		const char *name;
		int algorithm, mode, key;
	} modes[] = {
		{"AES-128-XTS", GCRY_CIPHER_AES128, GCRY_CIPHER_MODE_XTS, 32},
		{"AES-256-XTS", GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_XTS, 64},
		{"SM4-XTS", GCRY_CIPHER_SM4, GCRY_CIPHER_MODE_XTS, 32},
		{"AES-128-CBC", GCRY_CIPHER_AES128, GCRY_CIPHER_MODE_CBC, 16},
	};
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
		if (strcmp(modes[i].name, mode) != 0)
			continue;
		gcry_cipher_hd_t h;
		if (gcry_cipher_open(&h, modes[i].algorithm, modes[i].mode, 0))
			return 0;
		if (gcry_cipher_setkey(h, key, modes[i].key)) {
			gcry_cipher_close(h);
			return 0;
		}
		k->encrypt = k->decrypt = h;
		return 1;
	}
	return 0;
}

static void gcry_crypt(void *context, int decrypt, uint8_t *dst, const uint8_t *src, size_t unit, size_t units, uint64_t dun)
{
	uint8_t iv[16];
	for (size_t i = 0; i < units; i++) {
		number(iv, dun + i);
		if (gcry_cipher_setiv(context, iv, sizeof iv) ||
		    (decrypt ? gcry_cipher_decrypt(context, dst + i * unit, unit, src + i * unit, unit)
		             : gcry_cipher_encrypt(context, dst + i * unit, unit, src + i * unit, unit)))
			fatal("libgcrypt fails");
	}
}

static const peer peers[] = {
	{"OpenSSL", ossl_version, ossl_open, ossl_crypt, ossl_close},
	{"libgcrypt", gcry_version, gcry_open, gcry_crypt, gcry_close},
};
static const char *modes[] = {"AES-128-XTS", "AES-256-XTS", "SM4-XTS", "AES-128-CBC"};

static double now(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

// The pattern and the key are those of pattern() in contender.go.
static uint8_t *memory(size_t n)
{
	uint8_t *p;
	if (posix_memalign((void **)&p, 4096, n))
		fatal("out of memory");
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)((uint32_t)i * 2654435761u >> 11);
	return p;
}

static const peer *find(keyed *k, const char *name, const char *mode)
{
	uint8_t key[64];
	for (int i = 0; i < 64; i++)
		key[i] = (uint8_t)(i * 73 + 11);
	for (size_t i = 0; i < sizeof peers / sizeof *peers; i++)
		if (strcmp(peers[i].name, name) == 0 && peers[i].open(k, mode, key))
			return &peers[i];
	return NULL;
}

int main(void)
{
	char line[256], name[64], mode[64], op[16];
	size_t unit, units;
	double seconds;
	gcry_check_version(NULL);
	gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
	gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof line, stdin)) {
		keyed k;
		if (strcmp(line, "list\n") == 0) {
			for (size_t p = 0; p < sizeof peers / sizeof *peers; p++)
				for (size_t m = 0; m < sizeof modes / sizeof *modes; m++)
					if (find(&k, peers[p].name, modes[m])) {
						printf("%s %s %s\n", peers[p].name, peers[p].version(), modes[m]);
						peers[p].close(&k);
					}
			puts(".");
		} else if (sscanf(line, "sum %63s %63s %zu %zu", name, mode, &unit, &units) == 4) {
			const peer *p = find(&k, name, mode);
			if (!p)
				fatal("no such peer");
			uint8_t *src = memory(unit * units), *dst = memory(unit * units);
			p->crypt(k.encrypt, 0, dst, src, unit, units, 0x1122334455);
			uint64_t h = 14695981039346656037u;
			for (size_t i = 0; i < unit * units; i++)
				h = (h ^ dst[i]) * 1099511628211u;
			p->crypt(k.decrypt, 1, dst, dst, unit, units, 0x1122334455);
			if (memcmp(dst, src, unit * units))
				fatal("decryption does not give the plaintext");
			printf("%016llx\n", (unsigned long long)h);
			p->close(&k);
			free(src), free(dst);
		} else if (sscanf(line, "rate %63s %63s %15s %zu %zu %lf", name, mode, op, &unit, &units, &seconds) == 6) {
			const peer *p = find(&k, name, mode);
			if (!p)
				fatal("no such peer");
			int decrypt = strcmp(op, "decrypt") == 0;
			void *context = decrypt ? k.decrypt : k.encrypt;
			size_t n = unit * units, calls = n < 65536 ? 65536 / n : 1, done = 0;
			uint8_t *src = memory(n), *dst = memory(n);
			uint64_t dun = 1;
			p->crypt(context, decrypt, dst, src, unit, units, dun); // warms caches
			double end = now(CLOCK_MONOTONIC) + seconds, begin = now(CLOCK_THREAD_CPUTIME_ID);
			do {
				for (size_t i = 0; i < calls; i++, dun += units)
					p->crypt(context, decrypt, dst, src, unit, units, dun);
				done += calls * n;
			} while (now(CLOCK_MONOTONIC) < end);
			printf("%.0f\n", done / (now(CLOCK_THREAD_CPUTIME_ID) - begin));
			p->close(&k);
			free(src), free(dst);
		} else {
			fatal("cannot understand the request");
		}
	}
	return 0;
}
