/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/pki/peer.h"

#include "relay/base/list.h"
#include "relay/pki/chain.h"
#include "relay/pki/crl.h"
#include "relay/pki/words.h"
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>

/* Verdicts that one entry remembers: of so many partners and connectors, in each role. */
#define MEMORY_COUNT 16

/* A peer may send a chain of 100 KB; one larger than this is not kept when nobody uses it. */
#define KEPT_BYTES_MAX 32768

/* All of those together: decoded, they take some times as much. */
#define IDLE_BYTES_MAX (16u << 20)

/*
 * What beside the leaf is looked at, and how many names of it. A certificate with more is
 * invalid for everybody, and has no names.
 */
#define SENT_MAX 32
#define NAMES_MAX 1024

#define DIGEST_BYTES 32

struct peer_memory {
	uint64_t trust; /* its id; 0: empty */
	uint64_t generation;
	int64_t from; /* the time for which it was found out: before that it may be another */
	int64_t until;
	enum peer_purpose purpose;
	enum verdict verdict;
};

struct peer_entry {
	struct peer peer;
	struct peer_entry *next; /* of its bucket */
	struct link idle;        /* nobody uses it; oldest first */
	uint8_t digest[DIGEST_BYTES];
	uint8_t leaf_digest[DIGEST_BYTES];
	unsigned uses;
	uint64_t used_at;  /* by the cache's clock of uses */
	size_t bytes;      /* of leaf and chain */
	bool is_excessive; /* more was sent than is looked at: it is invalid */
	bool is_detached;  /* the cache is gone: the last user frees it */
	X509 *leaf;
	STACK_OF(X509) * chain; /* without the leaf; NULL: none */
	void *names;            /* what peer.names points into */
	struct peer_memory memory[MEMORY_COUNT];
	unsigned memory_next;
};

/* A leaf with any chain lies in the bucket of the leaf, so both kinds of look-up use one table. */
static struct peer_cache {
	pthread_mutex_t mutex;
	struct peer_entry **buckets;
	unsigned bucket_count; /* a power of two */
	struct link idle;
	unsigned idle_count;
	unsigned idle_max;
	size_t idle_bytes;
	uint64_t clock;
} cache = {.mutex = PTHREAD_MUTEX_INITIALIZER};

int peer_cache_create(unsigned entries)
{
	ASSERT(cache.buckets == NULL);
	cache.bucket_count = 256;
	while (cache.bucket_count < 2 * entries && cache.bucket_count < 1u << 24)
		cache.bucket_count *= 2;
	cache.buckets = calloc(cache.bucket_count, sizeof(struct peer_entry *));
	link_init(&cache.idle);
	cache.idle_count = 0;
	cache.idle_bytes = 0;
	cache.idle_max = entries;
	return cache.buckets == NULL ? -ENOMEM : 0;
}

static void entry_free(struct peer_entry *entry)
{
	X509_free(entry->leaf);
	sk_X509_pop_free(entry->chain, X509_free);
	free(entry->names);
	free(entry);
}

void peer_cache_destroy(void)
{
	for (unsigned i = 0; cache.buckets != NULL && i < cache.bucket_count; i++) {
		while (cache.buckets[i] != NULL) {
			struct peer_entry *entry = cache.buckets[i];

			cache.buckets[i] = entry->next;
			entry->is_detached = entry->uses > 0;
			if (!entry->is_detached)
				entry_free(entry);
		}
	}
	free(cache.buckets);
	cache.buckets = NULL;
}

/* Reading a certificate. */

static void hex_print(const uint8_t *bytes, size_t count, const char *digits, char *out)
{
	for (size_t i = 0; i < count; i++) {
		out[2 * i] = digits[bytes[i] >> 4];
		out[2 * i + 1] = digits[bytes[i] & 15];
	}
	out[2 * count] = '\0';
}

static void serial_print(X509 *leaf, char out[PEER_SERIAL_BYTES])
{
	BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(leaf), NULL);
	char *text = number == NULL ? NULL : BN_bn2hex(number);

	(void)snprintf(out, PEER_SERIAL_BYTES, "%s", text == NULL ? "" : text);
	OPENSSL_free(text);
	BN_free(number);
}

static bool key_digest(X509 *leaf, uint8_t out[DIGEST_BYTES])
{
	unsigned char *der = NULL;
	unsigned len = 0;
	int der_len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(leaf), &der);
	bool ok =
		der_len > 0 && EVP_Digest(der, (size_t)der_len, out, &len, EVP_sha256(), NULL) == 1;

	OPENSSL_free(der);
	return ok;
}

/* The names in the order dNSNames, CNs; each is a string that OpenSSL made, to be freed. */
struct name_list {
	struct span *spans;
	uint8_t *bytes;
	unsigned count;
	size_t used;
};

static void name_add(struct name_list *list, const uint8_t *data, size_t len)
{
	if (list->spans != NULL) {
		if (len > 0)
			memcpy(list->bytes + list->used, data, len);
		list->spans[list->count] = span_make(list->bytes + list->used, len);
	}
	list->count++;
	list->used += len;
}

static void names_add_dns(struct name_list *list, const GENERAL_NAMES *alternatives)
{
	for (int i = 0; i < sk_GENERAL_NAME_num(alternatives); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(alternatives, i);

		if (name->type == GEN_DNS)
			name_add(list, ASN1_STRING_get0_data(name->d.dNSName),
				(size_t)ASN1_STRING_length(name->d.dNSName));
	}
}

static void names_add_common(struct name_list *list, const X509_NAME *subject)
{
	int at = -1;

	while ((at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0) {
		const ASN1_STRING *text =
			X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
		unsigned char *utf8 = NULL;
		int len = ASN1_STRING_to_UTF8(&utf8, text);

		if (len >= 0)
			name_add(list, utf8, (size_t)len);
		OPENSSL_free(utf8);
	}
}

/*
 * Counts first, then copies: a peer may have many names, and none of them is cut. Of one with too
 * many even the common name is not there, since it would count in place of the others.
 */
static bool entry_create_names(struct peer_entry *entry)
{
	int critical = -1;
	GENERAL_NAMES *alternatives =
		X509_get_ext_d2i(entry->leaf, NID_subject_alt_name, &critical, NULL);
	const X509_NAME *subject = X509_get_subject_name(entry->leaf);
	struct name_list sizes = {0};
	struct name_list list = {0};
	unsigned dns_count;

	/* There and unreadable, or there twice: such names may not count as absent. */
	if (alternatives == NULL && critical != -1)
		return false;
	names_add_dns(&sizes, alternatives);
	names_add_common(&sizes, subject);
	if (sizes.count > NAMES_MAX) {
		entry->is_excessive = true;
		GENERAL_NAMES_free(alternatives);
		return true;
	}
	entry->names = calloc(1, sizes.count * sizeof(struct span) + sizes.used + 1);
	if (entry->names != NULL) {
		list.spans = entry->names;
		list.bytes = (uint8_t *)entry->names + sizes.count * sizeof(struct span);
		names_add_dns(&list, alternatives);
		dns_count = list.count;
		names_add_common(&list, subject);
		entry->peer.names = (struct certificate_names){.dns = list.spans,
			.dns_count = dns_count,
			.common = list.spans + dns_count,
			.common_count = list.count - dns_count};
	}
	GENERAL_NAMES_free(alternatives);
	return entry->names != NULL;
}

static void entry_print_names(struct peer *peer)
{
	size_t at = 0;

	for (unsigned i = 0; i < peer->names.dns_count; i++) {
		struct span name = peer->names.dns[i];

		if (at + name.len + 2 > sizeof(peer->names_text))
			break;
		if (i > 0)
			peer->names_text[at++] = ';';
		for (size_t j = 0; j < name.len; j++) {
			bool is_plain = name.data[j] > ' ' && name.data[j] < 127;

			peer->names_text[at++] = (char)(is_plain ? name.data[j] : '?');
		}
	}
	peer->names_text[at] = '\0';
}

static bool entry_read(struct peer_entry *entry)
{
	static const char upper[] = "0123456789ABCDEF";
	static const char lower[] = "0123456789abcdef";
	struct peer *peer = &entry->peer;
	uint8_t sha1[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	if (!key_digest(entry->leaf, peer->spki) ||
		X509_digest(entry->leaf, EVP_sha1(), sha1, &len) != 1 || !entry_create_names(entry))
		return false;
	hex_print(peer->spki, sizeof(peer->spki), lower, peer->spki_sha256);
	hex_print(sha1, len, upper, peer->thumbprint);
	openssl_print_name(
		X509_get_subject_name(entry->leaf), peer->subject, sizeof(peer->subject));
	openssl_print_name(X509_get_issuer_name(entry->leaf), peer->issuer, sizeof(peer->issuer));
	serial_print(entry->leaf, peer->serial);
	peer->not_before = chain_date(X509_get0_notBefore(entry->leaf));
	peer->not_after = chain_date(X509_get0_notAfter(entry->leaf));
	entry_print_names(peer);
	return true;
}

/* Digests. */

/* Some libraries send the leaf again at the head of its chain. */
static int chain_begin(X509 *leaf, STACK_OF(X509) * chain)
{
	X509 *first = sk_X509_num(chain) > 0 ? sk_X509_value(chain, 0) : NULL;

	return first != NULL && X509_cmp(first, leaf) == 0 ? 1 : 0;
}

/* One digest of the leaf, and one of the digests of all. */
static bool digests_make(X509 *leaf, STACK_OF(X509) * chain, uint8_t out_leaf[DIGEST_BYTES],
	uint8_t out[DIGEST_BYTES])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t each[EVP_MAX_MD_SIZE];
	bool ok = ctx != NULL && X509_digest(leaf, EVP_sha256(), each, NULL) == 1 &&
		  EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
		  EVP_DigestUpdate(ctx, each, DIGEST_BYTES) == 1;

	if (ok)
		memcpy(out_leaf, each, DIGEST_BYTES);
	for (int i = chain_begin(leaf, chain); ok && i < sk_X509_num(chain); i++)
		ok = X509_digest(sk_X509_value(chain, i), EVP_sha256(), each, NULL) == 1 &&
		     EVP_DigestUpdate(ctx, each, DIGEST_BYTES) == 1;
	ok = ok && EVP_DigestFinal_ex(ctx, out, NULL) == 1;
	EVP_MD_CTX_free(ctx);
	return ok;
}

/* Has it decoded now, before other threads see it; returns its size. */
static size_t certificate_settle(X509 *certificate)
{
	int len = i2d_X509(certificate, NULL);

	(void)X509_check_purpose(certificate, -1, 0);
	return len > 0 ? (size_t)len : 0;
}

static struct peer_entry *entry_create(X509 *leaf, STACK_OF(X509) * chain)
{
	struct peer_entry *entry = calloc(1, sizeof(*entry));
	int begin = chain_begin(leaf, chain);

	if (entry == NULL)
		return NULL;
	link_init(&entry->idle);
	(void)X509_up_ref(leaf);
	entry->leaf = leaf;
	entry->bytes = certificate_settle(leaf);
	entry->is_excessive = sk_X509_num(chain) - begin > SENT_MAX;
	if (sk_X509_num(chain) > begin && !entry->is_excessive) {
		entry->chain = X509_chain_up_ref(chain);
		if (entry->chain != NULL && begin == 1)
			X509_free(sk_X509_shift(entry->chain));
	}
	for (int i = 0; i < sk_X509_num(entry->chain); i++)
		entry->bytes += certificate_settle(sk_X509_value(entry->chain, i));
	if ((sk_X509_num(chain) > begin && entry->chain == NULL && !entry->is_excessive) ||
		!entry_read(entry)) {
		entry_free(entry);
		return NULL;
	}
	return entry;
}

/* The table; its mutex is held. */

static struct peer_entry **bucket_of(const uint8_t leaf_digest[DIGEST_BYTES])
{
	unsigned index = 0;

	memcpy(&index, leaf_digest, sizeof(index));
	return &cache.buckets[index & (cache.bucket_count - 1)];
}

static struct peer_entry *entry_find(
	const uint8_t leaf_digest[DIGEST_BYTES], const uint8_t digest[DIGEST_BYTES])
{
	struct peer_entry *entry = *bucket_of(leaf_digest);

	while (entry != NULL && memcmp(entry->digest, digest, DIGEST_BYTES) != 0)
		entry = entry->next;
	return entry;
}

static struct peer_entry *entry_find_leaf(const uint8_t leaf_digest[DIGEST_BYTES])
{
	struct peer_entry *best = NULL;

	for (struct peer_entry *entry = *bucket_of(leaf_digest); entry != NULL; entry = entry->next)
		if (memcmp(entry->leaf_digest, leaf_digest, DIGEST_BYTES) == 0 &&
			(best == NULL || entry->used_at > best->used_at))
			best = entry;
	return best;
}

static void entry_use(struct peer_entry *entry)
{
	if (entry->uses++ == 0 && link_is_queued(&entry->idle)) {
		link_remove(&entry->idle);
		cache.idle_count--;
		cache.idle_bytes -= entry->bytes;
	}
	entry->used_at = ++cache.clock;
}

static void entry_forget(struct peer_entry *entry)
{
	struct peer_entry **at = bucket_of(entry->leaf_digest);

	while (*at != entry)
		at = &(*at)->next;
	*at = entry->next;
	entry_free(entry);
}

/* Nobody uses it any more: it is kept for who comes again, in place of the oldest ones. */
static void entry_retire(struct peer_entry *entry)
{
	if (entry->bytes > KEPT_BYTES_MAX || cache.idle_max == 0) {
		entry_forget(entry);
		return;
	}
	list_append(&cache.idle, &entry->idle);
	cache.idle_count++;
	cache.idle_bytes += entry->bytes;
	while (cache.idle_count > cache.idle_max || cache.idle_bytes > IDLE_BYTES_MAX) {
		struct link *link = list_take(&cache.idle);
		struct peer_entry *oldest;

		ASSERT(link != NULL);
		oldest = OWNER_OF(link, struct peer_entry, idle);
		cache.idle_count--;
		cache.idle_bytes -= oldest->bytes;
		entry_forget(oldest);
	}
}

struct peer *peer_of_chain(struct x509_st *leaf, struct stack_st_X509 *chain)
{
	uint8_t leaf_digest[DIGEST_BYTES];
	uint8_t digest[DIGEST_BYTES];
	struct peer_entry *made = NULL;
	struct peer_entry *entry = NULL;

	if (!digests_make(leaf, chain, leaf_digest, digest))
		return NULL;
	(void)pthread_mutex_lock(&cache.mutex);
	ASSERT(cache.buckets != NULL);
	entry = entry_find(leaf_digest, digest);
	if (entry == NULL) {
		/* Reading takes a while; another thread may be as quick with the same one. */
		(void)pthread_mutex_unlock(&cache.mutex);
		made = entry_create(leaf, chain);
		ERR_clear_error();
		if (made == NULL)
			return NULL;
		memcpy(made->leaf_digest, leaf_digest, DIGEST_BYTES);
		memcpy(made->digest, digest, DIGEST_BYTES);
		(void)pthread_mutex_lock(&cache.mutex);
		entry = entry_find(leaf_digest, digest);
	}
	if (entry == NULL) {
		struct peer_entry **bucket = bucket_of(leaf_digest);

		entry = made;
		made = NULL;
		entry->next = *bucket;
		*bucket = entry;
	}
	entry_use(entry);
	(void)pthread_mutex_unlock(&cache.mutex);
	if (made != NULL)
		entry_free(made);
	return &entry->peer;
}

struct peer *peer_of_leaf(struct x509_st *leaf)
{
	uint8_t leaf_digest[EVP_MAX_MD_SIZE];
	struct peer_entry *entry;

	if (X509_digest(leaf, EVP_sha256(), leaf_digest, NULL) != 1)
		return NULL;
	(void)pthread_mutex_lock(&cache.mutex);
	ASSERT(cache.buckets != NULL);
	entry = entry_find_leaf(leaf_digest);
	if (entry != NULL)
		entry_use(entry);
	(void)pthread_mutex_unlock(&cache.mutex);
	return entry == NULL ? NULL : &entry->peer;
}

struct peer *peer_hold(struct peer *peer)
{
	(void)pthread_mutex_lock(&cache.mutex);
	entry_use(OWNER_OF(peer, struct peer_entry, peer));
	(void)pthread_mutex_unlock(&cache.mutex);
	return peer;
}

void peer_release(struct peer **peer)
{
	struct peer_entry *entry;

	if (*peer == NULL)
		return;
	entry = OWNER_OF(*peer, struct peer_entry, peer);
	*peer = NULL;
	(void)pthread_mutex_lock(&cache.mutex);
	ASSERT(entry->uses > 0);
	if (--entry->uses == 0 && entry->is_detached)
		entry_free(entry);
	else if (entry->uses == 0)
		entry_retire(entry);
	(void)pthread_mutex_unlock(&cache.mutex);
}

/* Verdicts. */

/* The place of a trust's verdict, or the one that is used up first. The mutex is held. */
static struct peer_memory *memory_find(
	struct peer_entry *entry, uint64_t trust, enum peer_purpose purpose)
{
	for (unsigned i = 0; i < MEMORY_COUNT; i++) {
		struct peer_memory *memory = &entry->memory[i];

		if (memory->trust == trust && memory->purpose == purpose)
			return memory;
	}
	return NULL;
}

static bool memory_recall(struct peer_entry *entry, uint64_t trust, enum peer_purpose purpose,
	uint64_t generation, time_t now, enum verdict *out)
{
	const struct peer_memory *memory;
	bool is_known;

	(void)pthread_mutex_lock(&cache.mutex);
	memory = memory_find(entry, trust, purpose);
	is_known = memory != NULL && memory->generation == generation && memory->from <= now &&
		   now < memory->until;
	if (is_known)
		*out = memory->verdict;
	(void)pthread_mutex_unlock(&cache.mutex);
	return is_known;
}

static void memory_note(struct peer_entry *entry, const struct peer_memory *what)
{
	struct peer_memory *memory;

	(void)pthread_mutex_lock(&cache.mutex);
	memory = memory_find(entry, what->trust, what->purpose);
	if (memory == NULL)
		memory = &entry->memory[entry->memory_next++ % MEMORY_COUNT];
	*memory = *what;
	(void)pthread_mutex_unlock(&cache.mutex);
}

enum verdict peer_judge(struct peer *peer, const struct trust *trust, enum peer_purpose purpose,
	time_t now, bool *out_is_pending)
{
	struct peer_entry *entry = OWNER_OF(peer, struct peer_entry, peer);
	/* Taken before: a list that changes meanwhile makes the verdict one of the past. */
	uint64_t generation = crl_generation();
	struct chain_answer answer = {.verdict = VERDICT_INVALID};
	struct peer_memory memory;

	if (out_is_pending != NULL)
		*out_is_pending = false;
	if (entry->is_excessive)
		return VERDICT_INVALID;
	if (memory_recall(entry, trust->id, purpose, generation, now, &answer.verdict))
		return answer.verdict;
	chain_judge(trust, entry->leaf, entry->chain, purpose, now, &answer);
	if (answer.is_pending) {
		if (out_is_pending != NULL)
			*out_is_pending = true;
		return answer.verdict;
	}
	memory = (struct peer_memory){.trust = trust->id,
		.generation = generation,
		.from = now,
		.until = answer.until,
		.purpose = purpose,
		.verdict = answer.verdict};
	memory_note(entry, &memory);
	return answer.verdict;
}
