/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_seal.c: records that relay/net/seal.h makes and opens, with OpenSSL on the other side: it
 * reads what we seal, and the other way round. What no honest peer sends is made with
 * ktls_fixture.h's own AEAD, or by a flipped bit.
 */

#include "relay/net/seal.h"
#include "tests/unit/ktls_fixture.h"

#define RX KTLS_DIRECTION_RX
#define TX KTLS_DIRECTION_TX

static struct {
	struct tls_peer client, server;
	struct tls_peer *mine, *theirs;
	struct ktls ktls;
	struct seal seal[KTLS_DIRECTION_COUNT];
	struct record_keys keys[KTLS_DIRECTION_COUNT];
} with;

static const struct {
	const char *version, *cipher;
	uint16_t kernel_version, kernel_cipher;
} suites[] = {
	{"TLSv1.3", "TLS_AES_128_GCM_SHA256", TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_128},
	{"TLSv1.3", "TLS_AES_256_GCM_SHA384", TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_256},
	{"TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256", TLS_1_3_VERSION, TLS_CIPHER_CHACHA20_POLY1305},
	{"TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", TLS_1_2_VERSION, TLS_CIPHER_AES_GCM_128},
	{"TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", TLS_1_2_VERSION, TLS_CIPHER_AES_GCM_256},
	{"TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305", TLS_1_2_VERSION, TLS_CIPHER_CHACHA20_POLY1305},
};

static uint8_t record[TLS_RECORD_BYTES_MAX + 64];
static uint8_t text_out[TLS_RECORD_TEXT_BYTES];
static uint8_t text_in[TLS_RECORD_TEXT_BYTES + 1];

static void with_open(unsigned suite, bool is_server, unsigned tickets)
{
	static const struct ktls_support none = {.why_not = "no kernel"};
	const char *why = NULL;

	peer_open(&with.client, false, suites[suite].version, suites[suite].cipher, tickets);
	peer_open(&with.server, true, suites[suite].version, suites[suite].cipher, tickets);
	peers_shake(&with.client, &with.server, 16384);
	with.mine = is_server ? &with.server : &with.client;
	with.theirs = is_server ? &with.client : &with.server;
	/* The keys are to be had where the kernel cannot help. */
	assert_false(ktls_init(&with.ktls, &none, FAKE_FD, &with.mine->tls, &why));
	assert_true(with.ktls.has_keys);
	for (unsigned way = 0; way < KTLS_DIRECTION_COUNT; way++) {
		assert_true(ktls_keys(
			&with.ktls, way, ktls_records(&with.mine->tls, way), &with.keys[way]));
		assert_int_equal(
			seal_open(&with.seal[way], &with.ktls, way == TX, &with.keys[way]), 0);
	}
}

static void with_close(void)
{
	seal_close(&with.seal[RX]);
	seal_close(&with.seal[TX]);
	assert_null(with.seal[RX].ctx);
	ktls_close(&with.ktls);
	peer_close(&with.client);
	peer_close(&with.server);
}

/* The other side's next record, as OpenSSL makes it. */
static size_t their_record(struct span text)
{
	size_t taken = 0;

	tls_sink(&with.theirs->tls, with.theirs->wire, WIRE_BYTES);
	assert_int_equal(tls_write(&with.theirs->tls, text, &taken), TLS_DONE);
	assert_int_equal(taken, text.len);
	with.theirs->wire_len = with.theirs->tls.sink_len;
	return peer_take(with.theirs, record);
}

static bool we_read(struct span want)
{
	uint8_t type = 0;
	struct span text = {0};
	size_t len = their_record(want);

	return seal_read(&with.seal[RX], record, len, &type, &text) == SEAL_GOOD &&
	       type == RECORD_DATA && span_equal(text, want) && text.data > record &&
	       text.data + text.len < record + len;
}

static bool they_read(struct span text)
{
	size_t len = seal_write(&with.seal[TX], RECORD_DATA, text, record);
	size_t got = 0;

	assert_true(len > text.len && len <= text.len + SEAL_OVERHEAD_BYTES);
	assert_int_equal(tls_record_length(span_make(record, len)), (int)len);
	tls_feed(&with.theirs->tls, span_make(record, len));
	return tls_read(&with.theirs->tls, text_in, sizeof(text_in), &got) == TLS_DONE &&
	       got == text.len && memcmp(text_in, text.data, got) == 0;
}

static void test_lengths(void **state)
{
	static const size_t lengths[] = {1, 2, 15, 16, 17, 95, 96, 97, 255, 4096, 16383, 16384};

	(void)state;
	for (unsigned i = 0; i < sizeof(text_out); i++)
		text_out[i] = (uint8_t)(i * 7 + i / 251);
	for (unsigned i = 0; i < COUNT_OF(suites) * 2; i++) {
		with_open(i / 2, i % 2 == 1, i % 3);
		for (unsigned n = 0; n < COUNT_OF(lengths); n++) {
			assert_true(we_read(span_make(text_out, lengths[n])));
			assert_true(
				they_read(span_make(text_out + 16384 - lengths[n], lengths[n])));
		}
		with_close();
	}
}

/* Beyond 255 records more than one byte of the number is in the nonce. */
static void test_many(void **state)
{
	(void)state;
	for (unsigned i = 0; i < COUNT_OF(suites); i++) {
		with_open(i, true, 2);
		for (unsigned n = 0; n < 600; n++) {
			assert_true(we_read(span_of("MAIL FROM:<>\r\n")));
			assert_true(they_read(span_of("250 2.1.0 ok\r\n")));
		}
		with_close();
	}
}

/* An alert of ours is one to OpenSSL, one of OpenSSL's is one to us. */
static void test_goodbye(void **state)
{
	static const uint8_t goodbye[2] = {1, 0};
	uint8_t type;
	struct span text;
	size_t len;

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(suites); i++) {
		with_open(i, false, 1);
		tls_sink(&with.theirs->tls, with.theirs->wire, WIRE_BYTES);
		tls_write_close(&with.theirs->tls);
		with.theirs->wire_len = with.theirs->tls.sink_len;
		len = peer_take(with.theirs, record);
		assert_int_equal(seal_read(&with.seal[RX], record, len, &type, &text), SEAL_GOOD);
		assert_int_equal(type, 21);
		assert_true(span_equal(text, span_make(goodbye, 2)));

		len = seal_write(&with.seal[TX], 21, span_make(goodbye, 2), record);
		tls_feed(&with.theirs->tls, span_make(record, len));
		assert_int_equal(tls_read(&with.theirs->tls, text_in, 1, &len), TLS_CLOSED);
		with_close();
	}
}

/* KeyUpdate in both directions, again and again. */
static void test_key_update(void **state)
{
	static const uint8_t update[5] = {24, 0, 0, 1, 0};
	struct record_keys next;
	uint8_t type;
	struct span text;
	size_t len;

	(void)state;
	for (unsigned i = 0; i < 3 * 2; i++) {
		with_open(i / 2, i % 2 == 1, 1);
		for (unsigned n = 0; n < 5; n++) {
			assert_int_equal(
				SSL_key_update(with.theirs->tls.ssl, SSL_KEY_UPDATE_NOT_REQUESTED),
				1);
			tls_sink(&with.theirs->tls, with.theirs->wire, WIRE_BYTES);
			assert_int_equal(SSL_do_handshake(with.theirs->tls.ssl), 1);
			with.theirs->wire_len = with.theirs->tls.sink_len;
			len = peer_take(with.theirs, record);
			assert_int_equal(
				seal_read(&with.seal[RX], record, len, &type, &text), SEAL_GOOD);
			assert_int_equal(type, RECORD_HANDSHAKE);
			assert_true(span_equal(text, span_make(update, 5)));
			assert_true(ktls_next_keys(&with.ktls, RX, &next));
			assert_int_equal(seal_open(&with.seal[RX], &with.ktls, false, &next), 0);
			assert_true(we_read(span_of("under the next key")));

			len = seal_write(
				&with.seal[TX], RECORD_HANDSHAKE, span_make(update, 5), record);
			assert_true(len > 0 && ktls_next_keys(&with.ktls, TX, &next));
			assert_int_equal(seal_open(&with.seal[TX], &with.ktls, true, &next), 0);
			tls_feed(&with.theirs->tls, span_make(record, len));
			assert_int_equal(tls_read(&with.theirs->tls, text_in, 1, &len), TLS_MORE);
			assert_true(they_read(span_of("and this")));
		}
		with_close();
	}
}

/* A copy of the receive side as it is now: an open that fails ends a connection, so each has one.
 */
static enum seal_status try_read(const uint8_t *bytes, size_t len)
{
	struct record_keys keys = with.keys[RX];
	struct seal seal = {0};
	uint8_t *copy = malloc(len);
	enum seal_status status;
	struct span text;
	uint8_t type;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	keys.sequence = with.seal[RX].sequence;
	assert_int_equal(seal_open(&seal, &with.ktls, false, &keys), 0);
	status = seal_read(&seal, copy, len, &type, &text);
	seal_close(&seal);
	free(copy);
	return status;
}

/* Every bit counts, and so does every byte that lacks. */
static void test_flipped(void **state)
{
	static uint8_t kept[256];
	size_t len;

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(suites); i++) {
		with_open(i, true, 0);
		len = their_record(span_of("DATA\r\n"));
		memcpy(kept, record, len);
		assert_int_equal(try_read(kept, len), SEAL_GOOD);
		for (size_t bit = 0; bit < 8 * len; bit++) {
			/* Its length is what the caller went by; TLS 1.2 protects that of the text.
			 */
			if (bit / 8 >= 3 && bit / 8 < 5 &&
				suites[i].kernel_version == TLS_1_2_VERSION)
				continue;
			kept[bit / 8] ^= (uint8_t)(1U << bit % 8);
			assert_int_not_equal(try_read(kept, len), SEAL_GOOD);
			kept[bit / 8] ^= (uint8_t)(1U << bit % 8);
		}
		for (size_t cut = 5; cut < len; cut++)
			assert_int_equal(try_read(kept, cut), SEAL_BAD);
		assert_int_equal(try_read(kept, len), SEAL_GOOD);
		with_close();
	}
}

/* Each record once, and in turn. */
static void test_replayed(void **state)
{
	static uint8_t first[256], second[256];
	size_t first_len, second_len;
	uint8_t type;
	struct span text;

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(suites); i++) {
		with_open(i, false, 0);
		first_len = their_record(span_of("one"));
		memcpy(first, record, first_len);
		second_len = their_record(span_of("two"));
		memcpy(second, record, second_len);
		assert_int_equal(try_read(second, second_len), SEAL_BAD);
		memcpy(record, first, first_len);
		assert_int_equal(
			seal_read(&with.seal[RX], record, first_len, &type, &text), SEAL_GOOD);
		assert_int_equal(try_read(first, first_len), SEAL_BAD);
		assert_int_equal(try_read(second, second_len), SEAL_GOOD);
		with_close();
	}
}

/* A sender with the keys that we read with: the peer, as it should not be. */
static size_t peer_seal(unsigned suite, uint8_t type, struct span text)
{
	struct fake_keys keys = {.version = suites[suite].kernel_version,
		.cipher = suites[suite].kernel_cipher,
		.sequence = with.seal[RX].sequence};

	memcpy(keys.key, with.keys[RX].key, sizeof(keys.key));
	memcpy(keys.iv, with.keys[RX].iv, sizeof(keys.iv));
	return fake_seal(&keys, type, text, record);
}

static void test_padding(void **state)
{
	static const uint8_t padded[] = "abc\x17\0\0\0\0";
	static const uint8_t zeros[16];
	struct span text;
	uint8_t type;
	size_t len;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		with_open(i, true, 0);
		/* The type of the fixture's is the last byte of what is padding here. */
		len = peer_seal(i, 0, span_make(padded, 8));
		assert_int_equal(seal_read(&with.seal[RX], record, len, &type, &text), SEAL_GOOD);
		assert_int_equal(type, RECORD_DATA);
		assert_true(span_equal(text, span_of("abc")));
		len = peer_seal(i, 0, span_make(zeros, sizeof(zeros)));
		assert_int_equal(try_read(record, len), SEAL_ODD);
		len = peer_seal(i, RECORD_DATA, span_make(zeros, 0));
		assert_int_equal(seal_read(&with.seal[RX], record, len, &type, &text), SEAL_GOOD);
		assert_int_equal(text.len, 0);
		with_close();
	}
}

static void test_long(void **state)
{
	static uint8_t much[16384 + 1];
	size_t len;

	(void)state;
	memset(much, 'x', sizeof(much));
	for (unsigned i = 0; i < COUNT_OF(suites); i++) {
		with_open(i, true, 0);
		len = peer_seal(i, RECORD_DATA, span_make(much, 16384));
		assert_int_equal(try_read(record, len), SEAL_GOOD);
		len = peer_seal(i, RECORD_DATA, span_make(much, 16385));
		assert_int_equal(try_read(record, len), SEAL_LONG);
		with_close();
	}
}

/* In clear, behind the handshake. */
static void test_clear(void **state)
{
	static const uint8_t alert[] = {21, 3, 3, 0, 2, 1, 0};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(suites); i++) {
		with_open(i, true, 0);
		assert_int_equal(try_read(alert, sizeof(alert)), i < 3 ? SEAL_ODD : SEAL_BAD);
		with_close();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_goodbye),
		cmocka_unit_test(test_key_update),
		cmocka_unit_test(test_flipped),
		cmocka_unit_test(test_replayed),
		cmocka_unit_test(test_padding),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_clear),
	};

	return cmocka_run_group_tests(tests, tls_fixture_setup, tls_fixture_teardown);
}
