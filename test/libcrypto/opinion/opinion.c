/*
 * opinion: what OpenSSL's libcrypto makes of data units, for tests that want a
 * second opinion.  Package libcrypto compiles, starts and talks to it.
 *
 * Requests come on stdin, answers go to stdout, numbers are little endian:
 *
 *   request  u32 op, u32 decrypt, u32 key bytes, u32 bytes in a data unit,
 *            u32 data units, u32 bytes in an initialisation vector, u32 repeat,
 *            u32 zero; the key; a vector for each data unit; the data
 *   answer   u32 status (0 done, 1 no such cipher here, 2 failed), u32 bytes,
 *            u64 nanoseconds that all repetitions took; the data, or the reason
 *
 * XTS of ciphers for which libcrypto has none (AES-192, SM4) is put together here
 * from ECB, after IEEE 1619.
 */
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { VERSION, AES_ECB, AES_CBC, AES_XTS, AES_XTS_BY_ECB, SM4_ECB, SM4_XTS };
enum { BLOCK = 16, MAX = 64 << 20 };

struct request {
	uint32_t op, decrypt, key_len, unit, units, iv_len, repeat, zero;
};

static void die(const char *why)
{
	fprintf(stderr, "opinion: %s\n", why);
	exit(1);
}

static unsigned char *take(size_t n)
{
	unsigned char *p = malloc(n ? n : 1);
	if (!p)
		die("out of memory");
	if (n && fread(p, 1, n, stdin) != n)
		die("request ends early");
	return p;
}

static void answer(uint32_t status, uint64_t ns, const void *data, uint32_t n)
{
	uint32_t head[2] = {status, n};
	if (fwrite(head, sizeof head, 1, stdout) != 1 || fwrite(&ns, sizeof ns, 1, stdout) != 1 ||
	    (n && fwrite(data, 1, n, stdout) != n) || fflush(stdout))
		die("cannot write");
}

/* A context for the named cipher, or NULL if this libcrypto has none. */
static EVP_CIPHER_CTX *begin(const char *family, size_t key_len, const char *mode,
			     const unsigned char *key, int decrypt)
{
	char name[32];
	if (!strcmp(family, "SM4"))
		snprintf(name, sizeof name, "SM4-%s", mode);
	else
		snprintf(name, sizeof name, "%s-%zu-%s", family, key_len * 8, mode);
	EVP_CIPHER *c = EVP_CIPHER_fetch(NULL, name, NULL);
	EVP_CIPHER_CTX *x = NULL;
	if (c && (x = EVP_CIPHER_CTX_new()) &&
	    (!EVP_CipherInit_ex(x, c, NULL, key, NULL, !decrypt) || !EVP_CIPHER_CTX_set_padding(x, 0))) {
		EVP_CIPHER_CTX_free(x);
		x = NULL;
	}
	EVP_CIPHER_free(c);
	return x;
}

static int update(EVP_CIPHER_CTX *x, unsigned char *dst, const unsigned char *src, size_t n)
{
	int out = 0;
	return EVP_CipherUpdate(x, dst, &out, src, (int)n) && out == (int)n;
}

/* What one request works with. */
struct job {
	EVP_CIPHER_CTX *data, *tweak; /* tweak: only for XTS by ECB */
	int decrypt;
	size_t unit, units, iv_len;
	const unsigned char *ivs, *src;
	unsigned char *dst;
};

static void next_tweak(unsigned char *t)
{
	int top = t[BLOCK - 1] >> 7;
	for (int i = BLOCK - 1; i > 0; i--)
		t[i] = (unsigned char)(t[i] << 1 | t[i - 1] >> 7);
	t[0] = (unsigned char)(t[0] << 1 ^ (top ? 0x87 : 0));
}

static int tweaked(struct job *j, unsigned char *dst, const unsigned char *src, const unsigned char *t)
{
	unsigned char b[BLOCK];
	for (int i = 0; i < BLOCK; i++)
		b[i] = src[i] ^ t[i];
	if (!update(j->data, b, b, BLOCK))
		return 0;
	for (int i = 0; i < BLOCK; i++)
		dst[i] = b[i] ^ t[i];
	return 1;
}

static int xts_by_ecb(struct job *j, unsigned char *dst, const unsigned char *src, const unsigned char *iv)
{
	unsigned char t[BLOCK], later[BLOCK], filled[BLOCK];
	size_t left = j->unit, part = left % BLOCK;
	if (left < BLOCK || !update(j->tweak, t, iv, BLOCK))
		return 0;
	for (; left >= BLOCK + (part ? BLOCK : 0); left -= BLOCK, src += BLOCK, dst += BLOCK) {
		if (!tweaked(j, dst, src, t))
			return 0;
		next_tweak(t);
	}
	if (!part)
		return 1;
	memcpy(later, t, BLOCK);
	next_tweak(later);
	if (!tweaked(j, dst, src, j->decrypt ? later : t))
		return 0;
	memcpy(filled, dst, BLOCK);
	memcpy(filled, src + BLOCK, part);
	memcpy(dst + BLOCK, dst, part);
	return tweaked(j, dst, filled, j->decrypt ? t : later);
}

static int once(struct job *j)
{
	for (size_t k = 0; k < j->units; k++) {
		unsigned char *dst = j->dst + k * j->unit;
		const unsigned char *src = j->src + k * j->unit, *iv = j->ivs + k * j->iv_len;
		if (j->tweak) {
			if (!xts_by_ecb(j, dst, src, iv))
				return 0;
			continue;
		}
		if (j->iv_len && !EVP_CipherInit_ex(j->data, NULL, NULL, NULL, iv, -1))
			return 0;
		if (!update(j->data, dst, src, j->unit))
			return 0;
	}
	return 1;
}

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void serve(const struct request *r)
{
	size_t n = (size_t)r->unit * r->units;
	if (r->key_len > 64 || r->iv_len > 32 || r->units > 1 << 20 || n > MAX || !r->repeat)
		die("request out of range");
	unsigned char *key = take(r->key_len), *ivs = take((size_t)r->iv_len * r->units), *src = take(n);
	struct job j = {
		.decrypt = r->decrypt != 0, .unit = r->unit, .units = r->units, .iv_len = r->iv_len,
		.ivs = ivs, .src = src, .dst = malloc(n ? n : 1),
	};
	if (!j.dst)
		die("out of memory");
	size_t half = r->key_len / 2;
	int ok = 1;
	ERR_clear_error();
	switch (r->op) {
	case VERSION:
		break;
	case AES_ECB:
		j.data = begin("AES", r->key_len, "ECB", key, j.decrypt);
		break;
	case AES_CBC:
		j.data = begin("AES", r->key_len, "CBC", key, j.decrypt);
		break;
	case AES_XTS:
		j.data = begin("AES", half, "XTS", key, j.decrypt);
		break;
	case AES_XTS_BY_ECB:
		j.data = begin("AES", half, "ECB", key, j.decrypt);
		j.tweak = begin("AES", half, "ECB", key + half, 0);
		break;
	case SM4_ECB:
		j.data = begin("SM4", r->key_len, "ECB", key, j.decrypt);
		break;
	case SM4_XTS:
		j.data = begin("SM4", half, "ECB", key, j.decrypt);
		j.tweak = begin("SM4", half, "ECB", key + half, 0);
		break;
	default:
		die("no such op");
	}
	if (r->op == VERSION) {
		const char *v = OpenSSL_version(OPENSSL_VERSION);
		answer(0, 0, v, (uint32_t)strlen(v));
	} else if (!j.data || ((r->op == AES_XTS_BY_ECB || r->op == SM4_XTS) && !j.tweak)) {
		char why[256];
		ERR_error_string_n(ERR_get_error(), why, sizeof why);
		answer(1, 0, why, (uint32_t)strlen(why));
	} else {
		uint64_t start = now();
		for (uint32_t i = 0; i < r->repeat && ok; i++)
			ok = once(&j);
		uint64_t ns = now() - start;
		if (ok) {
			answer(0, ns, j.dst, (uint32_t)n);
		} else {
			char why[256];
			ERR_error_string_n(ERR_get_error(), why, sizeof why);
			answer(2, 0, why, (uint32_t)strlen(why));
		}
	}
	EVP_CIPHER_CTX_free(j.data);
	EVP_CIPHER_CTX_free(j.tweak);
	free(key);
	free(ivs);
	free(src);
	free(j.dst);
}

int main(void)
{
	struct request r;
	while (fread(&r, sizeof r, 1, stdin) == 1)
		serve(&r);
	return 0;
}
