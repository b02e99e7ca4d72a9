/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_delivery.c: one attempt: what is said to a next hop, what becomes of each recipient whatever
 * it answers, and whether the session may be used for another message after that.
 */

#include "tests/unit/delivery_fixture.h"

/* Every class of reply at every step. */

enum step { STEP_MAIL, STEP_RCPT, STEP_DATA, STEP_END, STEP_RSET, STEP_COUNT };

static const char *const keyword_sets[] = {
	"", "PIPELINING", "CHUNKING", "PIPELINING CHUNKING", NULL};

static const char *const replies[] = {"250 2.0.0 OK", "251 2.0.0 OK", "220 2.0.0 Hm", "354 Go on",
	"350 Hm", "421 4.3.2 Bye", "450 4.2.0 Later", "452 4.3.1 Full", "500 5.5.2 What",
	"503 5.5.1 No", "550 5.1.1 No", "554 5.7.1 Never", "close"};

struct want {
	const char *verdicts;
	bool is_usable, is_lost;
	unsigned messages;
};

/* Does a small message's text go out behind its RCPTs? */
static bool is_eager(const char *keywords)
{
	return keywords != NULL && strcmp(keywords, "PIPELINING CHUNKING") == 0;
}

/*
 * What must come of a reply at a step. There are two recipients; the first gets that of RCPT, and
 * what the second one's answer to a text that has gone out already would be, nobody waits for.
 */
static struct want expect(const char *keywords, enum step step, const char *reply)
{
	const struct want over = {
		.verdicts = "LL", .messages = step == STEP_RCPT && is_eager(keywords)};
	const bool is_final = step == STEP_END || is_eager(keywords);
	struct want want = {.is_usable = true};

	if (strcmp(reply, "close") == 0)
		return (struct want){.verdicts = step == STEP_RSET ? "FF"
						 : is_final        ? "UU"
								   : "LL",
			.is_lost = true};
	if (step == STEP_RSET)
		return (struct want){.verdicts = "FF", .is_usable = reply[0] == '2'};
	if (strncmp(reply, "421", 3) == 0)
		return over;
	switch (reply[0]) {
	case '2':
		if (step == STEP_DATA)
			return over;
		want.verdicts = "SS";
		want.messages = 1;
		return want;
	case '3':
		if (step != STEP_DATA || strncmp(reply, "354", 3) != 0)
			return over;
		want.verdicts = "SS";
		want.messages = 1;
		return want;
	case '4':
		want.verdicts = step == STEP_RCPT ? "LS" : "LL";
		break;
	default:
		want.verdicts = step == STEP_RCPT ? "FS" : "FF";
		break;
	}
	want.messages = step == STEP_RCPT;
	return want;
}

static struct hop_script script_of(const char *keywords, enum step step, const char *reply)
{
	struct hop_script script = {.keywords = keywords};

	switch (step) {
	case STEP_MAIL:
		script.mail = reply;
		break;
	case STEP_RCPT:
		script.rcpt[0] = reply;
		break;
	case STEP_DATA:
		script.data = reply;
		break;
	case STEP_END:
		script.end = reply;
		script.last = reply;
		break;
	case STEP_RSET:
		script.rcpt[0] = "550 5.1.1 No";
		script.rcpt[1] = "551 5.1.6 Gone";
		script.rset = reply;
		break;
	case STEP_COUNT:
		break;
	}
	return script;
}

static void try_reply(const char *keywords, enum step step, const char *reply)
{
	const struct hop_script script = script_of(keywords, step, reply);
	const struct want want = expect(keywords, step, reply);
	const bool is_settled_before = step == STEP_RSET;

	rig_connect(&script);
	put_message(2);
	assert_string_equal(rig_deliver(), want.verdicts);
	assert_int_equal(rig.is_usable, want.is_usable);
	assert_int_equal(rig.lost[0] != '\0', want.is_lost);
	assert_int_equal(rig.read_error, 0);
	assert_int_equal(rig.hop.messages, want.messages);
	/* What the next hop has said is told as it is. */
	if (want.verdicts[0] == reply[0] || (!is_settled_before && want.is_usable)) {
		assert_false(rig.results[0].is_local);
		if (reply[0] >= '4')
			assert_string_equal(rig.results[0].text, reply);
	}
	if (!want.is_usable && !is_settled_before && reply[0] == '3')
		assert_non_null(strstr(rig.results[0].text, "makes no sense"));
	if (strncmp(reply, "421", 3) == 0 && !is_settled_before)
		assert_string_equal(rig.results[0].text, reply);
	if (rig.is_usable)
		assert_in_step();
	rig_disconnect();
}

static void test_delivery_replies(void **state)
{
	(void)state;
	for (unsigned k = 0; k < COUNT_OF(keyword_sets); k++) {
		for (unsigned step = 0; step < STEP_COUNT; step++) {
			/* There is no DATA where there is BDAT. */
			if (step == STEP_DATA && keyword_sets[k] != NULL &&
				strstr(keyword_sets[k], "CHUNKING") != NULL)
				continue;
			for (unsigned i = 0; i < COUNT_OF(replies); i++)
				try_reply(keyword_sets[k], step, replies[i]);
		}
	}
}

/* What is said, in which order, and when a transaction has to be ended. */
static const struct {
	const char *name;
	struct hop_script script;
	const char *verdicts, *verbs;
	bool is_usable;
} verb_cases[] = {
	{"all goes well", {.keywords = "PIPELINING"}, "SSS", "MAIL RCPT RCPT RCPT DATA . ", true},
	{"one by one", {.keywords = ""}, "SSS", "MAIL RCPT RCPT RCPT DATA . ", true},
	{"HELO only", {.keywords = NULL}, "SSS", "MAIL RCPT RCPT RCPT DATA . ", true},
	{"chunks", {.keywords = "PIPELINING CHUNKING"}, "SSS", "MAIL RCPT RCPT RCPT LAST ", true},
	{"some are refused",
		{.keywords = "PIPELINING", .rcpt = {"550 5.1.1 No", NULL, "450 4.2.1 Wait"}}, "FSL",
		"MAIL RCPT RCPT RCPT DATA . ", true},
	{"the message, too",
		{.keywords = "PIPELINING",
			.rcpt = {"550 5.1.1 No", NULL, "450 4.2.1 Wait"},
			.end = "554 5.7.1 Spam"},
		"FFL", "MAIL RCPT RCPT RCPT DATA . ", true},
	{"MAIL, with all behind it", {.keywords = "PIPELINING", .mail = "550 5.7.1 No"}, "FFF",
		"MAIL RCPT RCPT RCPT DATA ", true},
	{"MAIL, alone", {.keywords = "", .mail = "450 4.7.1 No"}, "LLL", "MAIL ", true},
	{"nobody, with DATA behind it",
		{.keywords = "PIPELINING", .rcpt = {"550 5.1.1 A", "551 5.1.6 B", "450 4.1.1 C"}},
		"FFL", "MAIL RCPT RCPT RCPT DATA RSET ", true},
	{"nobody, without", {.keywords = "", .rcpt = {"550 5.1.1 A", "551 5.1.6 B", "450 4.1.1 C"}},
		"FFL", "MAIL RCPT RCPT RCPT RSET ", true},
	{"nobody, with chunks",
		{.keywords = "PIPELINING CHUNKING",
			.rcpt = {"550 5.1.1 A", "551 5.1.6 B", "450 4.1.1 C"}},
		"FFL", "MAIL RCPT RCPT RCPT LAST RSET ", true},
	{"MAIL, with chunks", {.keywords = "PIPELINING CHUNKING", .mail = "550 5.7.1 No"}, "FFF",
		"MAIL RCPT RCPT RCPT LAST RSET ", true},
	{"nobody, and the text is taken all the same",
		{.keywords = "PIPELINING CHUNKING",
			.rcpt = {"550 5.1.1 A", "551 5.1.6 B", "450 4.1.1 C"},
			.last = "250 2.0.0 Hm"},
		"FFL", "MAIL RCPT RCPT RCPT LAST ", false},
	{"some are refused, with chunks",
		{.keywords = "PIPELINING CHUNKING",
			.rcpt = {"550 5.1.1 No", NULL, "450 4.2.1 Wait"}},
		"FSL", "MAIL RCPT RCPT RCPT LAST ", true},
	{"the message, too, with chunks",
		{.keywords = "PIPELINING CHUNKING",
			.rcpt = {"550 5.1.1 No", NULL, "450 4.2.1 Wait"},
			.last = "554 5.7.1 Spam"},
		"FFL", "MAIL RCPT RCPT RCPT LAST RSET ", true},
	{"nobody, and chunks wait for the answers where there is no PIPELINING",
		{.keywords = "CHUNKING", .rcpt = {"550 5.1.1 A", "551 5.1.6 B", "450 4.1.1 C"}},
		"FFL", "MAIL RCPT RCPT RCPT RSET ", true},
	{"nobody, and 354: the dot alone is refused (RFC 2920 3.1)",
		{.keywords = "PIPELINING",
			.rcpt = {"550 5.1.1 A", "551 5.1.6 B", "450 4.1.1 C"},
			.takes_empty = true},
		"FFL", "MAIL RCPT RCPT RCPT DATA . ", true},
	{"or taken, which settles nobody",
		{.keywords = "PIPELINING",
			.rcpt = {"550 5.1.1 A", "551 5.1.6 B", "450 4.1.1 C"},
			.takes_empty = true,
			.end = "250 2.0.0 Hm"},
		"FFL", "MAIL RCPT RCPT RCPT DATA . ", true},
	{"or answered with nonsense",
		{.keywords = "PIPELINING",
			.rcpt = {"550 5.1.1 A", "551 5.1.6 B", "450 4.1.1 C"},
			.takes_empty = true,
			.end = "354 Hm"},
		"FFL", "MAIL RCPT RCPT RCPT DATA . ", false},
	{"or not at all",
		{.keywords = "PIPELINING",
			.rcpt = {"550 5.1.1 A", "551 5.1.6 B", "450 4.1.1 C"},
			.takes_empty = true,
			.end = "421 4.3.2 Bye"},
		"FFL", "MAIL RCPT RCPT RCPT DATA . ", false},
	{"MAIL is refused, and 354",
		{.keywords = "PIPELINING", .mail = "550 5.7.1 No", .takes_empty = true}, "FFF",
		"MAIL RCPT RCPT RCPT DATA . ", true},
	{"MAIL is refused, and RCPT accepted",
		{.keywords = "PIPELINING", .mail = "550 5.7.1 No", .takes_any_rcpt = true}, "FFF",
		"MAIL RCPT RCPT RCPT DATA ", false},
	{"nobody, and DATA is answered with nonsense",
		{.keywords = "PIPELINING",
			.rcpt = {"550 5.1.1 A", "551 5.1.6 B", "450 4.1.1 C"},
			.takes_empty = true,
			.data = "250 2.0.0 Hm"},
		"FFL", "MAIL RCPT RCPT RCPT DATA ", false},
	{"LAST is refused", {.keywords = "PIPELINING CHUNKING", .last = "452 4.3.1 Full"}, "LLL",
		"MAIL RCPT RCPT RCPT LAST RSET ", true},
};

static void test_delivery_verbs(void **state)
{
	(void)state;
	for (unsigned i = 0; i < COUNT_OF(verb_cases); i++) {
		rig_connect(&verb_cases[i].script);
		put_message(3);
		if (strcmp(rig_deliver(), verb_cases[i].verdicts) != 0 ||
			rig.is_usable != verb_cases[i].is_usable ||
			strcmp(rig.hop.verbs, verb_cases[i].verbs) != 0)
			fail_msg("%s: %s usable=%d \"%s\"", verb_cases[i].name, rig_verdicts(),
				rig.is_usable, rig.hop.verbs);
		if (rig.is_usable)
			assert_in_step();
		rig_disconnect();
	}
}

/* The connector may forbid chunks. */
static void test_delivery_no_chunking(void **state)
{
	(void)state;
	rig.connector.chunking = false;
	rig_connect(&good);
	put_message(1);
	assert_string_equal(rig_deliver(), "S");
	assert_string_equal(rig.hop.verbs, "MAIL RCPT DATA . ");
	rig_disconnect();
	rig.connector.chunking = true;
}

/* What the next hop offers decides what is said, and whether anything is said at all. */

struct envelope_case {
	const char *keywords;
	unsigned flags;
	enum body_type body;
	const char *sender, *ret, *envid;
	const char *path, *notify, *orcpt;
	const char *mail, *rcpt; /* lines; NULL: refused here */
	const char *refusal;
};

#define UTF8_SENDER "<\xc3\xa4@contoso.test>"
#define UTF8_PATH "<\xc3\xb6@adatum.test>"

static const struct envelope_case envelope_cases[] = {
	{"", 0, BODY_UNSAID, "<a@contoso.test>", "", "", "<b@adatum.test>", "", "",
		"MAIL FROM:<a@contoso.test>", "RCPT TO:<b@adatum.test>", NULL},
	{"", 0, BODY_UNSAID, "<>", "", "", "<b@adatum.test>", "", "", "MAIL FROM:<>",
		"RCPT TO:<b@adatum.test>", NULL},
	{NULL, 0, BODY_7BIT, "<a@contoso.test>", "HDRS", "x", "<b@adatum.test>", "NEVER", "",
		"MAIL FROM:<a@contoso.test>", "RCPT TO:<b@adatum.test>", NULL},
	/* SIZE */
	{"SIZE", 0, BODY_UNSAID, "<a@contoso.test>", "", "", "<b@adatum.test>", "", "",
		"MAIL FROM:<a@contoso.test> SIZE=24", "RCPT TO:<b@adatum.test>", NULL},
	{"SIZE=24", 0, BODY_UNSAID, "<a@contoso.test>", "", "", "<b@adatum.test>", "", "",
		"MAIL FROM:<a@contoso.test> SIZE=24", "RCPT TO:<b@adatum.test>", NULL},
	{"SIZE=23", 0, BODY_UNSAID, "<a@contoso.test>", "", "", "<b@adatum.test>", "", "", NULL,
		NULL, "552 5.3.4 "},
	/* 8BITMIME: by what the text is, not by what was said of it */
	{"8BITMIME", 0, BODY_8BITMIME, "<a@contoso.test>", "", "", "<b@adatum.test>", "", "",
		"MAIL FROM:<a@contoso.test>", "RCPT TO:<b@adatum.test>", NULL},
	{"8BITMIME", ENVELOPE_EIGHT_BIT, BODY_8BITMIME, "<a@contoso.test>", "", "",
		"<b@adatum.test>", "", "", "MAIL FROM:<a@contoso.test> BODY=8BITMIME",
		"RCPT TO:<b@adatum.test>", NULL},
	{"8BITMIME", ENVELOPE_EIGHT_BIT, BODY_UNSAID, "<a@contoso.test>", "", "", "<b@adatum.test>",
		"", "", "MAIL FROM:<a@contoso.test> BODY=8BITMIME", "RCPT TO:<b@adatum.test>",
		NULL},
	{"", 0, BODY_8BITMIME, "<a@contoso.test>", "", "", "<b@adatum.test>", "", "",
		"MAIL FROM:<a@contoso.test>", "RCPT TO:<b@adatum.test>", NULL},
	{"SMTPUTF8 CHUNKING", ENVELOPE_EIGHT_BIT, BODY_8BITMIME, "<a@contoso.test>", "", "",
		"<b@adatum.test>", "", "", NULL, NULL, "554 5.6.3 "},
	{NULL, ENVELOPE_EIGHT_BIT, BODY_UNSAID, "<a@contoso.test>", "", "", "<b@adatum.test>", "",
		"", NULL, NULL, "554 5.6.3 "},
	/* BINARYMIME */
	{"CHUNKING BINARYMIME", ENVELOPE_EIGHT_BIT, BODY_BINARYMIME, "<a@contoso.test>", "", "",
		"<b@adatum.test>", "", "", "MAIL FROM:<a@contoso.test> BODY=BINARYMIME",
		"RCPT TO:<b@adatum.test>", NULL},
	{"8BITMIME BINARYMIME", 0, BODY_BINARYMIME, "<a@contoso.test>", "", "", "<b@adatum.test>",
		"", "", NULL, NULL, "554 5.6.3 "},
	{"8BITMIME CHUNKING", 0, BODY_BINARYMIME, "<a@contoso.test>", "", "", "<b@adatum.test>", "",
		"", NULL, NULL, "554 5.6.3 "},
	/* SMTPUTF8: for an address, for a header, maybe for what is in the body */
	{"8BITMIME SMTPUTF8", ENVELOPE_SMTPUTF8, BODY_UNSAID, "<a@contoso.test>", "", "",
		"<b@adatum.test>", "", "", "MAIL FROM:<a@contoso.test>", "RCPT TO:<b@adatum.test>",
		NULL},
	{"8BITMIME SMTPUTF8", ENVELOPE_SMTPUTF8, BODY_UNSAID, UTF8_SENDER, "", "",
		"<b@adatum.test>", "", "", "MAIL FROM:" UTF8_SENDER " SMTPUTF8",
		"RCPT TO:<b@adatum.test>", NULL},
	{"8BITMIME SMTPUTF8", ENVELOPE_SMTPUTF8, BODY_UNSAID, "<a@contoso.test>", "", "", UTF8_PATH,
		"", "", "MAIL FROM:<a@contoso.test> SMTPUTF8", "RCPT TO:" UTF8_PATH, NULL},
	{"8BITMIME SMTPUTF8", ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_HEADER | ENVELOPE_EIGHT_BIT,
		BODY_8BITMIME, "<a@contoso.test>", "", "", "<b@adatum.test>", "", "",
		"MAIL FROM:<a@contoso.test> BODY=8BITMIME SMTPUTF8", "RCPT TO:<b@adatum.test>",
		NULL},
	{"8BITMIME SMTPUTF8", ENVELOPE_SMTPUTF8 | ENVELOPE_EIGHT_BIT, BODY_8BITMIME,
		"<a@contoso.test>", "", "", "<b@adatum.test>", "", "",
		"MAIL FROM:<a@contoso.test> BODY=8BITMIME SMTPUTF8", "RCPT TO:<b@adatum.test>",
		NULL},
	{"8BITMIME", ENVELOPE_SMTPUTF8 | ENVELOPE_EIGHT_BIT, BODY_8BITMIME, "<a@contoso.test>", "",
		"", "<b@adatum.test>", "", "", "MAIL FROM:<a@contoso.test> BODY=8BITMIME",
		"RCPT TO:<b@adatum.test>", NULL},
	{"8BITMIME SMTPUTF8", ENVELOPE_UTF8_HEADER | ENVELOPE_EIGHT_BIT, BODY_8BITMIME,
		"<a@contoso.test>", "", "", "<b@adatum.test>", "", "",
		"MAIL FROM:<a@contoso.test> BODY=8BITMIME", "RCPT TO:<b@adatum.test>", NULL},
	{"8BITMIME", ENVELOPE_SMTPUTF8, BODY_UNSAID, UTF8_SENDER, "", "", "<b@adatum.test>", "", "",
		NULL, NULL, "550 5.6.7 "},
	{"8BITMIME", ENVELOPE_SMTPUTF8, BODY_UNSAID, "<a@contoso.test>", "", "", UTF8_PATH, "", "",
		NULL, NULL, "550 5.6.7 "},
	{"8BITMIME", ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_HEADER | ENVELOPE_EIGHT_BIT, BODY_8BITMIME,
		"<a@contoso.test>", "", "", "<b@adatum.test>", "", "", NULL, NULL, "550 5.6.7 "},
	/* DSN */
	{"DSN", 0, BODY_UNSAID, "<a@contoso.test>", "HDRS", "QQ314159", "<b@adatum.test>",
		"SUCCESS,DELAY", "rfc822;b@adatum.test",
		"MAIL FROM:<a@contoso.test> RET=HDRS ENVID=QQ314159",
		"RCPT TO:<b@adatum.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@adatum.test", NULL},
	{"DSN", 0, BODY_UNSAID, "<a@contoso.test>", "", "", "<b@adatum.test>", "", "",
		"MAIL FROM:<a@contoso.test>", "RCPT TO:<b@adatum.test>", NULL},
	{"SIZE", 0, BODY_UNSAID, "<a@contoso.test>", "FULL", "QQ314159", "<b@adatum.test>", "NEVER",
		"rfc822;b@adatum.test", "MAIL FROM:<a@contoso.test> SIZE=24",
		"RCPT TO:<b@adatum.test>", NULL},
	{"DSN", 0, BODY_UNSAID, "<a@contoso.test>", "", "", "<b@adatum.test>", "NEVER",
		"utf-8;\xc3\xb6@adatum.test", "MAIL FROM:<a@contoso.test>",
		"RCPT TO:<b@adatum.test> NOTIFY=NEVER", NULL},
	{"DSN SMTPUTF8 8BITMIME", 0, BODY_UNSAID, "<a@contoso.test>", "", "", "<b@adatum.test>", "",
		"utf-8;\xc3\xb6@adatum.test", "MAIL FROM:<a@contoso.test>",
		"RCPT TO:<b@adatum.test> ORCPT=utf-8;\xc3\xb6@adatum.test", NULL},
};

static void try_envelope(const struct envelope_case *it)
{
	const struct hop_script script = {.keywords = it->keywords};

	rig_connect(&script);
	spool_put(&rig.spool, span_of(body_text));
	rig.spool.envelope.flags = it->flags;
	rig.spool.envelope.body = it->body;
	rig.spool.envelope.sender = span_of(it->sender);
	rig.spool.envelope.ret = span_of(it->ret);
	rig.spool.envelope.envid = span_of(it->envid);
	spool_add_rcpt(&rig.spool, it->path, it->notify, it->orcpt);
	rig_pick_all();
	assert_string_equal(rig_deliver(), it->refusal == NULL ? "S" : "F");
	assert_true(rig.is_usable);
	if (it->refusal != NULL) {
		assert_true(rig.results[0].is_local);
		assert_memory_equal(rig.results[0].text, it->refusal, strlen(it->refusal));
		assert_string_equal(rig.hop.verbs, "");
	} else {
		assert_false(rig.results[0].is_local);
		assert_string_equal(rig.hop.mail_line, it->mail);
		assert_string_equal(rig.hop.rcpt_line, it->rcpt);
	}
	if (rig.client.offer.size_max == 0)
		assert_in_step();
	rig_disconnect();
}

static void test_delivery_envelopes(void **state)
{
	(void)state;
	for (unsigned i = 0; i < COUNT_OF(envelope_cases); i++)
		try_envelope(&envelope_cases[i]);
}

/* The connector's own limit, and lines that are no commands any more. */
static void test_delivery_too_much(void **state)
{
	static char path[9000];

	(void)state;
	rig_connect(&good);
	rig.connector.max_message_bytes = strlen(body_text) - 1;
	put_message(2);
	assert_string_equal(rig_deliver(), "FF");
	assert_int_equal(rig.results[1].code, 552);
	rig.connector.max_message_bytes++;
	assert_in_step();
	rig.connector.max_message_bytes = 0;
	memset(path, 'x', sizeof(path) - 1);
	put_message(1);
	spool_add_rcpt(&rig.spool, path, "", "");
	spool_add_rcpt(&rig.spool, "<c@adatum.test>", "", "");
	rig_pick_all();
	assert_string_equal(rig_deliver(), "SFS");
	assert_true(rig.results[1].is_local);
	put_message(1);
	rig.spool.envelope.sender = span_of(path);
	assert_string_equal(rig_deliver(), "F");
	assert_true(rig.is_usable && rig.results[0].is_local);
	rig_disconnect();
}

/* Those who can be asked for are, whatever comes of the others; the indexes stay the envelope's. */
static void test_delivery_some_utf8(void **state)
{
	static const struct hop_script script = {.keywords = "PIPELINING 8BITMIME",
		.rcpt = {"550 5.1.1 No", NULL, "450 4.2.1 Wait"}};

	(void)state;
	rig_connect(&script);
	spool_put(&rig.spool, span_of(body_text));
	rig.spool.envelope.flags = ENVELOPE_SMTPUTF8;
	spool_add_rcpt(&rig.spool, UTF8_PATH, "", "");
	spool_add_rcpt(&rig.spool, "<b@adatum.test>", "", "");
	spool_add_rcpt(&rig.spool, UTF8_PATH, "", "");
	spool_add_rcpt(&rig.spool, "<c@adatum.test>", "", "");
	spool_add_rcpt(&rig.spool, "<d@adatum.test>", "", "");
	rig_pick_all();
	assert_string_equal(rig_deliver(), "FFFSL");
	assert_true(rig.results[0].is_local && rig.results[2].is_local);
	assert_false(rig.results[1].is_local);
	assert_string_equal(rig.results[1].text, "550 5.1.1 No");
	assert_string_equal(rig.hop.mail_line, "MAIL FROM:<a@contoso.test>");
	assert_string_equal(rig.hop.rcpt_line, "RCPT TO:<d@adatum.test>");
	rig_disconnect();
}

/* Only those who were picked. */
static void test_delivery_pick(void **state)
{
	(void)state;
	rig_connect(&good);
	put_message(9);
	rig.picks[0] = 2;
	rig.picks[1] = 3;
	rig.picks[2] = 8;
	rig.pick_count = 3;
	assert_string_equal(rig_deliver(), "SSS");
	assert_string_equal(rig.hop.verbs, "MAIL RCPT RCPT RCPT LAST ");
	assert_string_equal(rig.hop.rcpt_line, "RCPT TO:<r8@adatum.test>");
	put_message(9);
	rig.pick_count = 0;
	assert_string_equal(rig_deliver(), "");
	assert_true(rig.is_usable);
	assert_int_equal(rig.read_error, 0);
	assert_int_equal(rig.hop.messages, 1);
	assert_in_step();
	rig_disconnect();
}

/* More commands than a buffer holds: they go out as there is room. */
static void test_delivery_many(void **state)
{
	static const char *const sets[] = {"PIPELINING DSN", "DSN", "PIPELINING CHUNKING DSN"};
	char path[600];
	char orcpt[500];

	(void)state;
	memset(orcpt, 'o', sizeof(orcpt));
	(void)memcpy(orcpt, "rfc822;", 7);
	orcpt[sizeof(orcpt) - 1] = '\0';
	for (unsigned i = 0; i < COUNT_OF(sets); i++) {
		const struct hop_script script = {
			.keywords = sets[i], .rcpt = {NULL, "550 5.1.1 No"}, .bytes_in_turn = 1000};
		const char *verdicts;

		rig_connect(&script);
		spool_put(&rig.spool, span_of(body_text));
		for (unsigned n = 0; n < DELIVERY_RCPTS_MAX; n++) {
			(void)snprintf(path, sizeof(path), "<%0500u@adatum.test>", n);
			spool_add_rcpt(&rig.spool, path, "FAILURE", orcpt);
		}
		rig_pick_all();
		verdicts = rig_deliver();
		assert_int_equal(strlen(verdicts), DELIVERY_RCPTS_MAX);
		for (unsigned n = 0; n < DELIVERY_RCPTS_MAX; n++)
			assert_int_equal(verdicts[n], n == 1 ? 'F' : 'S');
		assert_int_equal(rig.hop.messages, 1);
		assert_in_step();
		rig_disconnect();
	}
}

/* What recipients are told. */
static void test_delivery_texts(void **state)
{
	static char long_line[900];
	static const struct {
		const char *reply, *text;
	} cases[] = {
		{"550 No", "550 No"},
		{"550", "550"},
		{"550-5.1.1 The user\r\n550-5.1.1  is not\r\n550-\r\n550 5.1.1 known ",
			"550 5.1.1 The user 5.1.1  is not 5.1.1 known"},
		{"550-\r\n550 ", "550"},
	};

	(void)state;
	for (unsigned i = 0; i < COUNT_OF(cases); i++) {
		const struct hop_script script = {
			.keywords = "PIPELINING", .rcpt = {cases[i].reply}};

		rig_connect(&script);
		put_message(1);
		assert_string_equal(rig_deliver(), "F");
		assert_string_equal(rig.results[0].text, cases[i].text);
		rig_disconnect();
	}
	/* Cut, but not within a character: there is room for 507 bytes behind the code. */
	(void)snprintf(long_line, sizeof(long_line), "550 %0506u\xc3\xa4 and more", 1);
	rig_connect(&(struct hop_script){.keywords = "", .mail = long_line});
	put_message(1);
	assert_string_equal(rig_deliver(), "F");
	assert_int_equal(strlen(rig.results[0].text), DELIVERY_TEXT_BYTES - 2);
	assert_memory_equal(rig.results[0].text, long_line, DELIVERY_TEXT_BYTES - 2);
	rig_disconnect();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_delivery_replies),
		cmocka_unit_test(test_delivery_verbs),
		cmocka_unit_test(test_delivery_no_chunking),
		cmocka_unit_test(test_delivery_envelopes),
		cmocka_unit_test(test_delivery_too_much),
		cmocka_unit_test(test_delivery_some_utf8),
		cmocka_unit_test(test_delivery_pick),
		cmocka_unit_test(test_delivery_many),
		cmocka_unit_test(test_delivery_texts),
	};

	return RIG_RUN(tests);
}
