/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_ktls.c: what ktls.c tells the kernel. Behind its seam stands ktls_fixture.h; when
 * OpenSSL on the other side reads what that has protected, and the other way
 * round, then keys, nonces and sequence numbers were right.
 */

#include "tests/unit/ktls_fixture.h"

/* One side of a finished handshake and its kernel. */
struct hand_off {
	struct tls_peer client;
	struct tls_peer server;
	struct tls_peer *mine;
	struct tls_peer *theirs;
	struct ktls ktls;
};

static struct hand_off with;

static void hand_off_open(const char *version, const char *cipher, unsigned tickets, bool is_server)
{
	const char *why_not = NULL;

	memset(&fake, 0, sizeof(fake));
	ktls_kernel = (struct ktls_kernel){.setsockopt = fake_setsockopt, .sendmsg = fake_sendmsg};
	peer_open(&with.client, false, version, cipher, tickets);
	peer_open(&with.server, true, version, cipher, tickets);
	peers_shake(&with.client, &with.server, 16384);
	with.mine = is_server ? &with.server : &with.client;
	with.theirs = is_server ? &with.client : &with.server;
	assert_true(ktls_init(&with.ktls, support_all(), FAKE_FD, &with.mine->tls, &why_not));
}

static void hand_off_close(void)
{
	ktls_close(&with.ktls);
	peer_close(&with.client);
	peer_close(&with.server);
}

/* The other side sends through OpenSSL, our kernel reads; false if it cannot. */
static bool kernel_reads(const char *text)
{
	uint8_t record[TLS_RECORD_BYTES_MAX];
	uint8_t type = 0;
	size_t taken = 0;
	size_t len;
	int got = 0;

	tls_sink(&with.theirs->tls, with.theirs->wire, WIRE_BYTES);
	assert_int_equal(tls_write(&with.theirs->tls, span_of(text), &taken), TLS_DONE);
	with.theirs->wire_len = with.theirs->tls.sink_len;
	while ((len = peer_take(with.theirs, record)) > 0)
		got = fake_open(&fake.keys[KTLS_DIRECTION_RX], record, len, &type);
	return got == (int)strlen(text) && memcmp(record, text, strlen(text)) == 0 &&
	       type == RECORD_DATA;
}

/* Our kernel sends, the other side reads through OpenSSL. */
static bool kernel_writes(uint8_t type, const char *text, size_t text_len)
{
	uint8_t record[TLS_RECORD_BYTES_MAX];
	uint8_t out[256];
	size_t got = 0;
	size_t len =
		fake_seal(&fake.keys[KTLS_DIRECTION_TX], type, span_make(text, text_len), record);
	enum tls_status status;

	tls_feed(&with.theirs->tls, span_make(record, len));
	status = tls_read(&with.theirs->tls, out, sizeof(out), &got);
	if (type != RECORD_DATA)
		return status == TLS_MORE;
	return status == TLS_DONE && got == text_len && memcmp(out, text, got) == 0;
}

/* One record in userspace on both sides. */
static bool user_passes(struct tls_peer *from, struct tls_peer *to)
{
	uint8_t record[TLS_RECORD_BYTES_MAX];
	uint8_t text[16];
	size_t len = 0;

	tls_sink(&from->tls, from->wire, WIRE_BYTES);
	assert_int_equal(tls_write(&from->tls, span_of("in userspace"), &len), TLS_DONE);
	from->wire_len = from->tls.sink_len;
	len = peer_take(from, record);
	tls_feed(&to->tls, span_make(record, len));
	return tls_read(&to->tls, text, sizeof(text), &len) == TLS_DONE && len == 12 &&
	       memcmp(text, "in userspace", len) == 0 && from->wire_len == 0;
}

static const struct {
	const char *version;
	const char *cipher;
	uint16_t kernel_version, kernel_cipher;
} suites[] = {
	{"TLSv1.3", "TLS_AES_128_GCM_SHA256", TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_128},
	{"TLSv1.3", "TLS_AES_256_GCM_SHA384", TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_256},
	{"TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256", TLS_1_3_VERSION, TLS_CIPHER_CHACHA20_POLY1305},
	{"TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", TLS_1_2_VERSION, TLS_CIPHER_AES_GCM_128},
	{"TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", TLS_1_2_VERSION, TLS_CIPHER_AES_GCM_256},
	{"TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305", TLS_1_2_VERSION, TLS_CIPHER_CHACHA20_POLY1305},
};

/* Every suite, either side, after 0, 1, 2 and 4 tickets: what one end protects the other reads. */
static void test_ktls_hand_off(void **state)
{
	static const unsigned tickets[] = {0, 1, 2, 4};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(suites) * COUNT_OF(tickets) * 2; i++) {
		unsigned suite = i / 2 / COUNT_OF(tickets);

		hand_off_open(suites[suite].version, suites[suite].cipher,
			tickets[i / 2 % COUNT_OF(tickets)], i % 2 == 1);
		for (unsigned way = 0; way < KTLS_DIRECTION_COUNT; way++) {
			assert_int_equal(
				ktls_install(&with.ktls, way, ktls_records(&with.mine->tls, way)),
				0);
			assert_true(with.ktls.active[way]);
			assert_int_equal(fake.keys[way].version, suites[suite].kernel_version);
			assert_int_equal(fake.keys[way].cipher, suites[suite].kernel_cipher);
		}
		assert_int_equal(fake.ulp_calls, 1);
		for (unsigned n = 0; n < 3; n++) {
			assert_true(kernel_reads("EHLO peer.test\r\n"));
			assert_true(kernel_writes(RECORD_DATA, "250 ok\r\n", 8));
		}
		hand_off_close();
	}
}

/* The same when records have passed in userspace before, and for one direction alone. */
static void test_ktls_hand_off_late(void **state)
{
	(void)state;
	for (unsigned i = 0; i < COUNT_OF(suites) * 2; i++) {
		hand_off_open(suites[i / 2].version, suites[i / 2].cipher, 2, i % 2 == 1);
		for (unsigned n = 0; n < 4; n++)
			assert_true(user_passes(with.theirs, with.mine));
		assert_true(user_passes(with.mine, with.theirs));
		assert_int_equal(ktls_install(&with.ktls, KTLS_DIRECTION_RX,
					 ktls_records(&with.mine->tls, KTLS_DIRECTION_RX)),
			0);
		assert_true(kernel_reads("after four"));
		assert_false(with.ktls.active[KTLS_DIRECTION_TX]);
		assert_int_equal(ktls_install(&with.ktls, KTLS_DIRECTION_TX,
					 ktls_records(&with.mine->tls, KTLS_DIRECTION_TX)),
			0);
		assert_true(kernel_writes(RECORD_DATA, "after one", 9));
		hand_off_close();
	}
}

/* RFC 8448 3: secrets of the simple handshake, and the keys that it derives from them. */
static const uint8_t rfc8448_client[32] = {0x9e, 0x40, 0x64, 0x6c, 0xe7, 0x9a, 0x7f, 0x9d, 0xc0,
	0x5a, 0xf8, 0x88, 0x9b, 0xce, 0x65, 0x52, 0x87, 0x5a, 0xfa, 0x0b, 0x06, 0xdf, 0x00, 0x87,
	0xf7, 0x92, 0xeb, 0xb7, 0xc1, 0x75, 0x04, 0xa5};
static const uint8_t rfc8448_server[32] = {0xa1, 0x1a, 0xf9, 0xf0, 0x55, 0x31, 0xf8, 0x56, 0xad,
	0x47, 0x11, 0x6b, 0x45, 0xa9, 0x50, 0x32, 0x82, 0x04, 0xb4, 0xf4, 0x4b, 0xfb, 0x6b, 0x3a,
	0x4b, 0x4f, 0x1f, 0x3f, 0xcb, 0x63, 0x16, 0x43};
static const uint8_t rfc8448_client_key[16] = {0x17, 0x42, 0x2d, 0xda, 0x59, 0x6e, 0xd5, 0xd9, 0xac,
	0xd8, 0x90, 0xe3, 0xc6, 0x3f, 0x50, 0x51};
static const uint8_t rfc8448_client_iv[12] = {
	0x5b, 0x78, 0x92, 0x3d, 0xee, 0x08, 0x57, 0x90, 0x33, 0xe5, 0x23, 0xd9};
static const uint8_t rfc8448_server_key[16] = {0x9f, 0x02, 0x28, 0x3b, 0x6c, 0x9c, 0x07, 0xef, 0xc2,
	0x6b, 0xb9, 0xf2, 0xac, 0x92, 0xe3, 0x56};
static const uint8_t rfc8448_server_iv[12] = {
	0xcf, 0x78, 0x2b, 0x88, 0xdd, 0x83, 0x54, 0x9a, 0xad, 0xf1, 0xe9, 0x84};

static void test_ktls_rfc8448(void **state)
{
	(void)state;
	for (unsigned is_server = 0; is_server < 2; is_server++) {
		const struct fake_keys *from_client =
			&fake.keys[is_server ? KTLS_DIRECTION_RX : KTLS_DIRECTION_TX];
		const struct fake_keys *from_server =
			&fake.keys[is_server ? KTLS_DIRECTION_TX : KTLS_DIRECTION_RX];
		const char *why_not = NULL;
		struct tls *tls;

		hand_off_open("TLSv1.3", "TLS_AES_128_GCM_SHA256", 0, is_server == 1);
		tls = &with.mine->tls;
		memcpy(tls->client_secret, rfc8448_client, 32);
		memcpy(tls->server_secret, rfc8448_server, 32);
		tls->rx_records = 7;
		tls->tx_records = 0x0102030405060708;
		assert_true(ktls_init(&with.ktls, support_all(), FAKE_FD, tls, &why_not));
		assert_int_equal(ktls_install(&with.ktls, KTLS_DIRECTION_TX,
					 ktls_records(tls, KTLS_DIRECTION_TX)),
			0);
		assert_int_equal(ktls_install(&with.ktls, KTLS_DIRECTION_RX,
					 ktls_records(tls, KTLS_DIRECTION_RX)),
			0);
		assert_memory_equal(from_client->key, rfc8448_client_key, 16);
		assert_memory_equal(from_client->iv, rfc8448_client_iv, 12);
		assert_memory_equal(from_server->key, rfc8448_server_key, 16);
		assert_memory_equal(from_server->iv, rfc8448_server_iv, 12);
		assert_int_equal(fake.keys[KTLS_DIRECTION_RX].sequence, 7);
		assert_int_equal(fake.keys[KTLS_DIRECTION_TX].sequence, 0x0102030405060708);
		hand_off_close();
	}
}

/* A refusal leaves the direction to OpenSSL, which goes on as if nothing had been. */
static void test_ktls_refused(void **state)
{
	static const struct {
		int ulp, rx, tx;
	} cases[] = {
		{ENOENT, 0, 0},
		{0, ENOPROTOOPT, 0},
		{0, 0, EINVAL},
		{0, EBUSY, ENOMEM},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		int want_rx = cases[i].ulp != 0 ? -cases[i].ulp : -cases[i].rx;
		int want_tx = cases[i].ulp != 0 ? -cases[i].ulp : -cases[i].tx;

		hand_off_open("TLSv1.3", "TLS_AES_256_GCM_SHA384", 2, true);
		fake.ulp_error = cases[i].ulp;
		fake.error[KTLS_DIRECTION_RX] = cases[i].rx;
		fake.error[KTLS_DIRECTION_TX] = cases[i].tx;
		assert_int_equal(ktls_install(&with.ktls, KTLS_DIRECTION_RX,
					 ktls_records(&with.mine->tls, KTLS_DIRECTION_RX)),
			want_rx);
		assert_int_equal(ktls_install(&with.ktls, KTLS_DIRECTION_TX,
					 ktls_records(&with.mine->tls, KTLS_DIRECTION_TX)),
			want_tx);
		assert_int_equal(with.ktls.active[KTLS_DIRECTION_RX], want_rx == 0);
		assert_int_equal(with.ktls.active[KTLS_DIRECTION_TX], want_tx == 0);
		assert_int_equal(with.ktls.has_ulp, cases[i].ulp == 0);
		if (want_rx == 0)
			assert_true(kernel_reads("in the kernel"));
		else
			assert_true(user_passes(with.theirs, with.mine));
		if (want_tx == 0)
			assert_true(kernel_writes(RECORD_DATA, "in the kernel", 13));
		else
			assert_true(user_passes(with.mine, with.theirs));
		hand_off_close();
	}
}

/* What the trials have shown not to work is not tried again. */
static void test_ktls_unsupported(void **state)
{
	struct ktls_support support = *support_all();
	struct ktls_support none = {.why_not = "kernel-has-no-tls-module"};
	const char *why_not = NULL;
	struct tls *tls;

	(void)state;
	support.works[1][KTLS_CIPHER_AES_256_GCM][KTLS_DIRECTION_RX] = false;
	hand_off_open("TLSv1.3", "TLS_AES_256_GCM_SHA384", 0, true);
	tls = &with.mine->tls;
	assert_true(ktls_init(&with.ktls, &support, FAKE_FD, tls, &why_not));
	assert_int_equal(
		ktls_install(&with.ktls, KTLS_DIRECTION_RX, ktls_records(tls, KTLS_DIRECTION_RX)),
		-EOPNOTSUPP);
	assert_int_equal(fake.calls, 0);
	assert_int_equal(
		ktls_install(&with.ktls, KTLS_DIRECTION_TX, ktls_records(tls, KTLS_DIRECTION_TX)),
		0);
	assert_false(ktls_init(&with.ktls, &none, FAKE_FD, tls, &why_not));
	assert_string_equal(why_not, "kernel-has-no-tls-module");
	tls->secret_len = 0;
	assert_false(ktls_init(&with.ktls, support_all(), FAKE_FD, tls, &why_not));
	assert_string_equal(why_not, "no-secret");
	hand_off_close();
	peer_open(&with.client, false, "TLSv1.2", "ECDHE-ECDSA-AES128-SHA256", 0);
	peer_open(&with.server, true, "TLSv1.2", "ECDHE-ECDSA-AES128-SHA256", 0);
	peers_shake(&with.client, &with.server, 16384);
	assert_false(ktls_init(&with.ktls, support_all(), FAKE_FD, &with.server.tls, &why_not));
	assert_string_equal(why_not, "cipher");
	hand_off_close();
}

/* RFC 8446 7.2: the peer's OpenSSL changes its key, and so do we; twice. */
static void test_ktls_rekey(void **state)
{
	static const char key_update[] = {24, 0, 0, 1, 0}; /* RFC 8446 4.6.3, none asked back */

	(void)state;
	for (unsigned suite = 0; suite < 3; suite++) {
		hand_off_open(suites[suite].version, suites[suite].cipher, 1, true);
		for (unsigned way = 0; way < KTLS_DIRECTION_COUNT; way++)
			assert_int_equal(
				ktls_install(&with.ktls, way, ktls_records(&with.mine->tls, way)),
				0);
		assert_true(kernel_reads("old key"));
		for (unsigned n = 0; n < 2; n++) {
			assert_int_equal(
				SSL_key_update(with.theirs->tls.ssl, SSL_KEY_UPDATE_NOT_REQUESTED),
				1);
			/* The KeyUpdate itself is under the old key, what follows under the new. */
			assert_false(kernel_reads("new key"));
			assert_int_equal(ktls_rekey(&with.ktls, KTLS_DIRECTION_RX), 0);
			assert_int_equal(fake.keys[KTLS_DIRECTION_RX].sequence, 0);
			fake.keys[KTLS_DIRECTION_RX].sequence = 1; /* the one that it failed on */
			assert_true(kernel_reads("new key"));

			assert_true(
				kernel_writes(RECORD_HANDSHAKE, key_update, sizeof(key_update)));
			assert_int_equal(ktls_rekey(&with.ktls, KTLS_DIRECTION_TX), 0);
			assert_true(kernel_writes(RECORD_DATA, "new key", 7));
		}
		assert_int_equal(fake.keys[KTLS_DIRECTION_RX].times_set, 3);
		assert_int_equal(fake.keys[KTLS_DIRECTION_TX].times_set, 3);
		fake.error[KTLS_DIRECTION_RX] = EBUSY;
		assert_int_equal(ktls_rekey(&with.ktls, KTLS_DIRECTION_RX), -EBUSY);
		hand_off_close();
	}
}

static void test_ktls_rekey_unsupported(void **state)
{
	struct ktls_support old = *support_all();
	const char *why_not = NULL;

	(void)state;
	old.rekeys = false;
	hand_off_open("TLSv1.3", "TLS_AES_256_GCM_SHA384", 0, true);
	assert_true(ktls_init(&with.ktls, &old, FAKE_FD, &with.mine->tls, &why_not));
	assert_int_equal(ktls_install(&with.ktls, KTLS_DIRECTION_RX,
				 ktls_records(&with.mine->tls, KTLS_DIRECTION_RX)),
		0);
	assert_int_equal(ktls_rekey(&with.ktls, KTLS_DIRECTION_RX), -EOPNOTSUPP);
	assert_true(kernel_reads("the key has not changed"));
	hand_off_close();
	hand_off_open("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", 0, true);
	assert_int_equal(ktls_rekey(&with.ktls, KTLS_DIRECTION_RX), -EOPNOTSUPP);
	hand_off_close();
}

static void test_ktls_control(void **state)
{
	static const uint8_t close_notify[] = {1, 0};
	_Alignas(struct cmsghdr) uint8_t control[KTLS_CONTROL_BYTES] = {0};
	struct msghdr message = {.msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	(void)state;
	memset(&fake, 0, sizeof(fake));
	ktls_kernel.sendmsg = fake_sendmsg;
	assert_int_equal(ktls_send_control(FAKE_FD, 21, span_make(close_notify, 2)), 0);
	assert_int_equal(fake.sent_type, 21);
	assert_int_equal(fake.sent_len, 2);
	assert_memory_equal(fake.sent, close_notify, 2);
	assert_int_equal(fake.sent_flags & (MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE),
		MSG_DONTWAIT | MSG_NOSIGNAL);
	fake.send_error = EAGAIN;
	assert_int_equal(ktls_send_control(FAKE_FD, 21, span_make(close_notify, 2)), -EAGAIN);

	header->cmsg_level = SOL_TLS;
	header->cmsg_type = TLS_GET_RECORD_TYPE;
	header->cmsg_len = CMSG_LEN(1);
	*CMSG_DATA(header) = RECORD_HANDSHAKE;
	assert_int_equal(ktls_record_type(&message), RECORD_HANDSHAKE);
	header->cmsg_level = SOL_SOCKET;
	assert_int_equal(ktls_record_type(&message), RECORD_DATA);
	message.msg_controllen = 0;
	assert_int_equal(ktls_record_type(&message), RECORD_DATA);
}

static void test_ktls_no_pad_and_close(void **state)
{
	static const uint8_t zeros[TLS_SECRET_BYTES_MAX];

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(suites); i++) {
		hand_off_open(suites[i].version, suites[i].cipher, 0, false);
		assert_int_equal(ktls_install(&with.ktls, KTLS_DIRECTION_RX,
					 ktls_records(&with.mine->tls, KTLS_DIRECTION_RX)),
			0);
		ktls_expect_no_pad(&with.ktls);
		assert_int_equal(fake.option_calls, suites[i].kernel_version == TLS_1_3_VERSION);
		ktls_close(&with.ktls);
		assert_false(with.ktls.active[KTLS_DIRECTION_RX]);
		assert_memory_equal(with.ktls.secret[0], zeros, sizeof(zeros));
		assert_memory_equal(with.ktls.secret[1], zeros, sizeof(zeros));
		hand_off_close();
	}
}

/* A kernel of which the trials at start are to find out what it can. */
static struct {
	int ulp_error;
	bool no_tls13_rx, rekeys;
	int keyed_fd;
} trial;

static int trial_setsockopt(int fd, int level, int name, const void *value, socklen_t bytes)
{
	struct tls_crypto_info info;

	errno = trial.ulp_error;
	if (level == IPPROTO_TCP)
		return trial.ulp_error == 0 ? 0 : -1;
	assert_true(bytes > sizeof(info));
	memcpy(&info, value, sizeof(info));
	errno = EINVAL;
	if (info.cipher_type == TLS_CIPHER_CHACHA20_POLY1305)
		return -1;
	if (trial.no_tls13_rx && info.version == TLS_1_3_VERSION && name == TLS_RX)
		return -1;
	errno = EBUSY;
	if (name == TLS_TX && trial.keyed_fd == fd && !trial.rekeys) {
		trial.keyed_fd = -1;
		return -1;
	}
	trial.keyed_fd = name == TLS_TX && info.version == TLS_1_3_VERSION ? fd : -1;
	return 0;
}

static void test_ktls_probe(void **state)
{
	struct ktls_support support;

	(void)state;
	ktls_kernel.setsockopt = trial_setsockopt;
	trial.ulp_error = ENOENT;
	ktls_probe(&support);
	assert_string_equal(support.why_not, "kernel-has-no-tls-module");
	trial.ulp_error = EPERM;
	ktls_probe(&support);
	assert_string_equal(support.why_not, "kernel-refused-every-trial");
	for (unsigned cipher = 0; cipher < KTLS_CIPHER_COUNT; cipher++)
		assert_false(support.works[1][cipher][0] || support.works[0][cipher][1]);
	trial.ulp_error = 0;
	for (unsigned i = 0; i < 4; i++) {
		trial.keyed_fd = -1;
		trial.no_tls13_rx = i % 2 == 1;
		trial.rekeys = i / 2 == 1;
		ktls_probe(&support);
		assert_null(support.why_not);
		assert_int_equal(support.rekeys, trial.rekeys);
		for (unsigned cipher = 0; cipher < KTLS_CIPHER_COUNT; cipher++) {
			bool has = cipher == KTLS_CIPHER_AES_128_GCM ||
				   cipher == KTLS_CIPHER_AES_256_GCM;
			bool(*works)[KTLS_CIPHER_COUNT][KTLS_DIRECTION_COUNT] = support.works;

			assert_int_equal(works[0][cipher][KTLS_DIRECTION_RX], has);
			assert_int_equal(works[0][cipher][KTLS_DIRECTION_TX], has);
			assert_int_equal(
				works[1][cipher][KTLS_DIRECTION_RX], has && !trial.no_tls13_rx);
			assert_int_equal(works[1][cipher][KTLS_DIRECTION_TX], has);
		}
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ktls_hand_off),
		cmocka_unit_test(test_ktls_hand_off_late),
		cmocka_unit_test(test_ktls_rfc8448),
		cmocka_unit_test(test_ktls_refused),
		cmocka_unit_test(test_ktls_unsupported),
		cmocka_unit_test(test_ktls_rekey),
		cmocka_unit_test(test_ktls_rekey_unsupported),
		cmocka_unit_test(test_ktls_control),
		cmocka_unit_test(test_ktls_no_pad_and_close),
		cmocka_unit_test(test_ktls_probe),
	};

	return cmocka_run_group_tests(tests, tls_fixture_setup, tls_fixture_teardown);
}
