/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_delivery_body.c: the text of a message, from the spool to the next hop: as it was, whatever
 * pieces it comes in, however slowly it is read, and never with an end that it did not have.
 */

#include "tests/unit/delivery_fixture.h"

#define LARGE_BYTES (3 * 1024 * 1024)

/* In order of keyword_sets: DATA, DATA, BDAT, BDAT. */
static const char *const keyword_sets[] = {
	"", "PIPELINING", "CHUNKING", "PIPELINING CHUNKING BINARYMIME 8BITMIME"};

static bool is_bdat(const char *keywords)
{
	return strstr(keywords, "CHUNKING") != NULL;
}

static uint8_t large[LARGE_BYTES];
static size_t large_len;

static void large_add(const void *bytes, size_t len)
{
	assert_true(large_len + len <= sizeof(large));
	memcpy(large + large_len, bytes, len);
	large_len += len;
}

/* Lines of all lengths, many of which begin with dots. */
static struct span make_large(void)
{
	uint32_t seed = 12345;

	large_len = 0;
	large_add("Subject: large\r\n\r\n", 18);
	while (large_len + 2000 < sizeof(large)) {
		unsigned len;

		seed = seed * 1103515245 + 12345;
		len = (seed >> 16) % 990;
		if (seed & 1 << 10)
			large_add("...", 1 + (seed >> 12) % 3);
		for (unsigned i = 0; i < len; i++)
			large_add(&(uint8_t){(uint8_t)('!' + (seed + i) % 90)}, 1);
		large_add("\r\n", 2);
	}
	return span_make(large, large_len);
}

/* Every byte there is, and no line ends where they are needed. */
static struct span make_binary(size_t bytes)
{
	large_len = 0;
	large_add("Subject: binary\r\n\r\n\r\n.\r\nQUIT\r\n.\r", 32);
	while (large_len < bytes)
		large_add(&(uint8_t){(uint8_t)(large_len * 7 + large_len / 256)}, 1);
	return span_make(large, large_len);
}

/* The next hop must have got text, with the line end that DATA adds where there is none. */
static void assert_got(struct span text, const char *keywords)
{
	const bool has_end = text.len == 0 ||
			     (text.len >= 2 && memcmp(text.data + text.len - 2, "\r\n", 2) == 0);
	const bool is_added = !is_bdat(keywords) && !has_end;

	assert_int_equal(rig.hop.messages, 1);
	assert_int_equal(rig.hop.body_len, text.len + (is_added ? 2 : 0));
	if (text.len > 0)
		assert_memory_equal(rig.hop.body, text.data, text.len);
	if (is_added)
		assert_memory_equal(rig.hop.body + text.len, "\r\n", 2);
}

static void put_text(struct span text, size_t piece_bytes, bool has_separate_end)
{
	put_message(1);
	rig.spool.body = text;
	rig.spool.envelope.body_bytes = text.len;
	rig.spool.piece_bytes = piece_bytes;
	rig.spool.has_separate_end = has_separate_end;
}

/* In and out are the same, or differ by what the firewall takes out. */
static const struct {
	const char *name, *in;
	const char *untrusted; /* NULL: as it is */
} texts[] = {
	{"nothing", "", NULL},
	{"an empty header", "\r\n", NULL},
	{"a body", "A: b\r\n\r\nHello\r\n", NULL},
	{"a header only", "A: b\r\n", NULL},
	{"without its line end", "A: b", NULL},
	{"without the last line end", "A: b\r\n\r\nHello", NULL},
	{"dots", "A: b\r\n\r\n.\r\n..\r\n...\r\n.x\r\nx.\r\n.", NULL},
	{"a dot first", ".A: b\r\n\r\n.\r\n", NULL},
	{"an end of data", "A: b\r\n\r\n\r\n.\r\nMAIL FROM:<x@y>\r\n", NULL},
	{"half a line end", "A: b\r\n\r\nx\r", NULL},
	{"organization fields",
		"A: b\r\nX-MS-Exchange-Organization-AuthAs: Internal\r\nC: d\r\n"
		"x-ms-exchange-forest-x: a\r\n folded\r\nE: f\r\n\r\nX-MS-Exchange-Forest-y: z\r\n",
		"A: b\r\nC: d\r\nE: f\r\n\r\nX-MS-Exchange-Forest-y: z\r\n"},
	{"nothing else", "X-MS-Exchange-Organization-SCL: -1\r\n", ""},
	{"its name alone", "A: b\r\nX-MS-Exchange-Organization-", NULL},
	{"our own stamps", "X-Postern-Domain: x\r\nAuthentication-Results: y; none\r\n\r\n", NULL},
};

static void try_text(unsigned number, const char *keywords, size_t piece_bytes, bool is_trusted)
{
	const bool is_cut = !is_trusted && texts[number].untrusted != NULL;

	put_text(span_of(texts[number].in), piece_bytes, piece_bytes % 2 == 0);
	rig.delivery.is_trusted = is_trusted;
	hop_begin(&rig.hop, &(struct hop_script){.keywords = keywords});
	if (strcmp(rig_deliver(), "S") != 0)
		fail_msg("%s: %s", texts[number].name, rig_verdicts());
	assert_true(rig.is_usable);
	assert_got(span_of(is_cut ? texts[number].untrusted : texts[number].in), keywords);
	/* What is at hand at once goes out at once. */
	if (piece_bytes == 0 && is_bdat(keywords))
		assert_int_equal(rig.hop.chunks, 1);
}

static void test_body_texts(void **state)
{
	static const size_t pieces[] = {0, 1, 2, 7, 1000};

	(void)state;
	for (unsigned k = 0; k < COUNT_OF(keyword_sets); k++) {
		rig_connect(&(struct hop_script){.keywords = keyword_sets[k]});
		for (unsigned i = 0; i < COUNT_OF(texts) * COUNT_OF(pieces) * 2; i++)
			try_text(i / (COUNT_OF(pieces) * 2), keyword_sets[k],
				pieces[i / 2 % COUNT_OF(pieces)], i % 2 == 1);
		assert_int_equal(rig.spool.opened, rig.spool.ended);
		rig_disconnect();
	}
	rig.delivery.is_trusted = false;
}

/* Large ones, in pieces of all sizes, to next hops that are quick and slow. */
static void test_body_large(void **state)
{
	static const size_t pieces[] = {0, 4096, 65537, 524288};
	const struct span text = make_large();

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(keyword_sets) * COUNT_OF(pieces); i++) {
		const char *keywords = keyword_sets[i / COUNT_OF(pieces)];
		const struct hop_script script = {
			.keywords = keywords, .bytes_in_turn = i % 3 == 0 ? 0 : 5000 * (i % 3)};

		rig_connect(&script);
		put_text(text, pieces[i % COUNT_OF(pieces)], i % 2 == 0);
		assert_string_equal(rig_deliver(), "S");
		assert_got(text, keywords);
		assert_true(rig.is_usable);
		assert_in_step();
		rig_disconnect();
	}
}

/* BDAT carries any bytes (RFC 3030). */
static void test_body_binary(void **state)
{
	static const size_t sizes[] = {33, 16385, 24552, 24576, 65536, 1000000};

	(void)state;
	rig_connect(&(struct hop_script){.keywords = keyword_sets[3], .bytes_in_turn = 9000});
	for (unsigned i = 0; i < 2 * COUNT_OF(sizes); i++) {
		const struct span text = make_binary(sizes[i / 2]);

		put_text(text, i % 2 == 0 ? 0 : 777, false);
		rig.spool.envelope.body = BODY_BINARYMIME;
		rig.spool.envelope.flags = ENVELOPE_EIGHT_BIT;
		hop_begin(&rig.hop, &(struct hop_script){.keywords = keyword_sets[3]});
		assert_string_equal(rig_deliver(), "S");
		assert_non_null(strstr(rig.hop.mail_line, " BODY=BINARYMIME"));
		assert_got(text, keyword_sets[3]);
	}
	rig_disconnect();
}

/* A next hop that does not read: the spool is not asked for what nobody takes. */
static void test_body_back_pressure(void **state)
{
	const struct span text = make_large();

	(void)state;
	for (unsigned k = 0; k < COUNT_OF(keyword_sets); k++) {
		unsigned asked = 0;
		unsigned turn = 0;

		rig_connect(&(struct hop_script){
			.keywords = keyword_sets[k], .deaf_turns = RIG_TURNS_MAX});
		put_text(text, 4096, false);
		rig_start();
		/* Until nothing moves any more: the socket's buffers are full. */
		for (unsigned still = 0; still < 200; turn++) {
			assert_true(turn < RIG_TURNS_MAX);
			rig_turn();
			still = rig.spool.asked > 0 && asked == rig.spool.asked ? still + 1 : 0;
			asked = rig.spool.asked;
		}
		assert_int_equal(rig.delivery.state, DELIVERY_BODY);
		assert_true(asked < LARGE_BYTES / 4096);
		assert_false(rig.delivery.is_reading);
		rig.hop.script.deaf_turns = 0;
		rig_await(&rig.has_ended);
		assert_string_equal(rig_verdicts(), "S");
		assert_got(text, keyword_sets[k]);
		rig_disconnect();
	}
}

/* A spool that takes its time. */
static void test_body_late_text(void **state)
{
	(void)state;
	for (unsigned k = 0; k < COUNT_OF(keyword_sets); k++) {
		rig_connect(&(struct hop_script){.keywords = keyword_sets[k]});
		put_text(span_of("A: b\r\n\r\nHello\r\n"), 5, true);
		rig.spool.is_held = true;
		rig_start();
		for (unsigned i = 0; i < 5; i++) {
			unsigned asked = rig.spool.asked;

			for (unsigned turn = 0; turn < 20; turn++)
				rig_turn();
			assert_int_equal(rig.spool.asked, asked);
			spool_answer_now(&rig.spool);
			for (unsigned turn = 0; rig.spool.asked == asked && i < 4; turn++) {
				assert_true(turn < RIG_TURNS_MAX);
				rig_turn();
			}
		}
		assert_false(rig.has_ended);
		rig_await(&rig.has_ended);
		assert_string_equal(rig_verdicts(), "S");
		assert_got(span_of("A: b\r\n\r\nHello\r\n"), keyword_sets[k]);
		rig_disconnect();
	}
}

/* An answer to a chunk that is not the last, while there is more to send. */
static void test_body_chunk_replies(void **state)
{
	static const struct {
		const char *chunk, *last, *verdict;
		bool is_usable;
	} cases[] = {
		{"250 2.0.0 OK", NULL, "S", true},
		{"251 2.0.0 Hm", NULL, "S", true},
		{"354 Hm", NULL, "L", false},
		{"421 4.3.2 Bye", NULL, "L", false},
		{"452 4.3.1 Full", NULL, "L", true},
		{"552 5.3.4 Too large", NULL, "F", true},
		{"close", NULL, "L", false},
	};
	const struct span text = make_large();

	(void)state;
	for (unsigned i = 0; i < 2 * COUNT_OF(cases); i++) {
		const char *chunk = cases[i / 2].chunk;

		rig_connect(
			&(struct hop_script){.keywords = keyword_sets[2 + i % 2], .chunk = chunk});
		put_text(text, i % 2 == 0 ? 0 : 100000, false);
		assert_string_equal(rig_deliver(), cases[i / 2].verdict);
		assert_int_equal(rig.is_usable, cases[i / 2].is_usable);
		assert_int_equal(rig.hop.messages, chunk[0] == '2');
		assert_int_equal(rig.spool.opened, rig.spool.ended);
		if (chunk[0] == '4' || chunk[0] == '5')
			assert_string_equal(rig.results[0].text, chunk);
		if (chunk[0] != '2')
			assert_int_equal(rig.hop.ends, 0);
		if (rig.is_usable)
			assert_in_step();
		rig_disconnect();
	}
}

/*
 * A chunk is refused when the last one is on its way already. A next hop that takes the message all
 * the same has taken one that is not whole, and is not to be trusted with another.
 */
static void test_body_refused_chunk_then_last(void **state)
{
	static const struct {
		const char *last;
		bool is_usable;
	} cases[] = {{NULL, true}, {"503 5.5.1 No", true}, {"250 2.0.0 Taken", false},
		{"354 Hm", false}, {"421 4.3.2 Bye", false}, {"close", false}};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		rig_connect(&(struct hop_script){.keywords = keyword_sets[3],
			.chunk = "552 5.3.4 Too large",
			.last = cases[i].last,
			.deaf_turns = 200});
		/* One chunk fills a buffer, another is the rest. */
		put_text(span_head(make_large(), 80000), 0, false);
		assert_string_equal(rig_deliver(), "F");
		assert_int_equal(rig.hop.ends, 1);
		assert_string_equal(rig.results[0].text, "552 5.3.4 Too large");
		assert_int_equal(rig.is_usable, cases[i].is_usable);
		if (rig.is_usable)
			assert_in_step();
		rig_disconnect();
	}
}

/* Begins a message whose first piece has gone to the next hop, and whose second is awaited. */
static void send_first_piece(const struct hop_script *script)
{
	const size_t piece_bytes = 100000;

	rig_connect(script);
	put_text(make_large(), piece_bytes, false);
	rig.spool.is_held = true;
	rig_start();
	spool_answer_now(&rig.spool);
	for (unsigned turn = 0; rig.spool.asked < 1; turn++) {
		assert_true(turn < RIG_TURNS_MAX);
		rig_turn();
	}
	spool_answer_now(&rig.spool);
	for (unsigned turn = 0; rig.spool.asked < 2; turn++) {
		assert_true(turn < RIG_TURNS_MAX);
		rig_turn();
	}
}

/* What is at hand does not wait for what is not. */
static void test_body_leaves_in_time(void **state)
{
	(void)state;
	send_first_piece(&(struct hop_script){.keywords = keyword_sets[2]});
	for (unsigned turn = 0; rig.hop.body_len < 100000; turn++) {
		assert_true(turn < RIG_TURNS_MAX);
		rig_turn();
	}
	rig.spool.is_held = false;
	spool_answer_now(&rig.spool);
	rig_await(&rig.has_ended);
	assert_string_equal(rig_verdicts(), "S");
	assert_got(rig.spool.body, keyword_sets[2]);
	rig_disconnect();
}

/* The message was refused while the spool was at work: what that says then is of no use. */
static void test_body_refused_while_reading(void **state)
{
	static const int errors[] = {0, -EIO};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(errors); i++) {
		unsigned chunks;

		send_first_piece(&(struct hop_script){.keywords = keyword_sets[2],
			.chunk = "552 5.3.4 Too large",
			.rset = "silent"});
		for (unsigned turn = 0; !rig.hop.is_silent; turn++) {
			assert_true(turn < RIG_TURNS_MAX);
			rig_turn();
		}
		chunks = rig.hop.chunks;
		rig.spool.error = errors[i];
		spool_answer_now(&rig.spool);
		for (unsigned turn = 0; turn < 50; turn++)
			rig_turn();
		assert_false(rig.has_ended);
		assert_int_equal(rig.hop.chunks, chunks);
		rig.hop.is_silent = false;
		hop_say(&rig.hop, "250 2.0.0 OK");
		rig_await(&rig.has_ended);
		assert_string_equal(rig_verdicts(), "F");
		assert_true(rig.is_usable);
		assert_int_equal(rig.read_error, 0);
		assert_int_equal(rig.hop.ends, 0);
		assert_in_step();
		rig_disconnect();
	}
}

/* The next hop speaks, or goes, in the middle of DATA's text. */
static void test_body_interrupted(void **state)
{
	static const char *const words[] = {"421 4.3.2 Bye", "552 5.3.4 Too large", "close"};
	const struct span text = make_large();

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(words); i++) {
		rig_connect(&(struct hop_script){.keywords = keyword_sets[1], .in_body = words[i]});
		put_text(text, 0, false);
		assert_string_equal(rig_deliver(), "L");
		assert_false(rig.is_usable);
		assert_string_not_equal(rig.lost, "");
		rig_disconnect();
		assert_int_equal(rig.hop.ends, 0);
		assert_int_equal(rig.spool.opened, rig.spool.ended);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_body_texts),
		cmocka_unit_test(test_body_large),
		cmocka_unit_test(test_body_binary),
		cmocka_unit_test(test_body_back_pressure),
		cmocka_unit_test(test_body_late_text),
		cmocka_unit_test(test_body_chunk_replies),
		cmocka_unit_test(test_body_refused_chunk_then_last),
		cmocka_unit_test(test_body_leaves_in_time),
		cmocka_unit_test(test_body_refused_while_reading),
		cmocka_unit_test(test_body_interrupted),
	};

	return RIG_RUN(tests);
}
