/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/base/csv.h"

enum csv_where {
	CSV_FIELD,  /* at the start of a field */
	CSV_PLAIN,  /* in one without quotes */
	CSV_QUOTED, /* in one with */
	CSV_QUOTE,  /* behind a quote in it: its end, or half of a quote that it has */
	CSV_CR,     /* behind a CR; only LF may follow */
	CSV_SKIP,   /* in the rest of a bad line */
};

static void csv_begin_row(struct csv *csv)
{
	csv->field_count = 0;
	csv->len = 0;
	csv->where = CSV_FIELD;
	csv->is_bad = false;
	csv->is_fresh = false;
}

void csv_init(struct csv *csv)
{
	csv_begin_row(csv);
}

static void csv_spoil(struct csv *csv)
{
	csv->is_bad = true;
	csv->where = CSV_SKIP;
}

/* A field begins with the first byte of the row, and behind each comma. */
static void csv_begin_field(struct csv *csv)
{
	if (csv->field_count == CSV_FIELDS_MAX) {
		csv_spoil(csv);
		return;
	}
	csv->starts[csv->field_count++] = (uint32_t)csv->len;
	csv->where = CSV_FIELD;
}

static void csv_put(struct csv *csv, uint8_t byte)
{
	/* Room for the terminator stays. */
	if (csv->len + 1 >= sizeof(csv->bytes))
		csv_spoil(csv);
	else
		csv->bytes[csv->len++] = (char)(byte == 0 ? (uint8_t)'?' : byte);
}

static void csv_end_field(struct csv *csv)
{
	if (csv->len + 1 >= sizeof(csv->bytes))
		csv_spoil(csv);
	else
		csv->bytes[csv->len++] = '\0';
}

/* The line is over. CSV_MORE: it was empty. */
static enum csv_status csv_end_row(struct csv *csv)
{
	const bool is_torn = csv->where == CSV_QUOTED;

	csv->is_fresh = true;
	if (csv->is_bad || is_torn)
		return CSV_BAD;
	if (csv->field_count == 0)
		return CSV_MORE;
	csv_end_field(csv);
	return csv->is_bad ? CSV_BAD : CSV_ROW;
}

/* A byte that does not end the line. */
static void csv_take(struct csv *csv, uint8_t byte)
{
	if (csv->where == CSV_CR)
		csv_spoil(csv);
	if (csv->field_count == 0 && !csv->is_bad)
		csv_begin_field(csv);
	if (csv->where == CSV_SKIP)
		return;
	if (csv->where == CSV_QUOTED) {
		if (byte == '"')
			csv->where = CSV_QUOTE;
		else if (byte == '\r')
			csv_spoil(csv);
		else
			csv_put(csv, byte);
		return;
	}
	if (byte == ',') {
		csv_end_field(csv);
		if (!csv->is_bad)
			csv_begin_field(csv);
	} else if (byte == '\r') {
		csv->where = CSV_CR;
	} else if (byte == '"' && csv->where != CSV_PLAIN) {
		/* Behind the quote of a quoted field it is one that the field has. */
		if (csv->where == CSV_QUOTE)
			csv_put(csv, byte);
		if (!csv->is_bad)
			csv->where = CSV_QUOTED;
	} else if (byte == '"' || csv->where == CSV_QUOTE) {
		csv_spoil(csv);
	} else {
		csv->where = CSV_PLAIN;
		csv_put(csv, byte);
	}
}

enum csv_status csv_next(struct csv *csv, struct span *in)
{
	if (csv->is_fresh)
		csv_begin_row(csv);
	while (in->len > 0) {
		const uint8_t byte = in->data[0];

		*in = span_skip(*in, 1);
		if (byte == '\n') {
			const enum csv_status status = csv_end_row(csv);

			if (status != CSV_MORE)
				return status;
			csv_begin_row(csv);
		} else if (byte == '\r' && csv->field_count == 0 && !csv->is_bad) {
			/* Of an empty line: no field begins with it. */
			csv->where = csv->where == CSV_FIELD ? CSV_CR : CSV_SKIP;
			csv->is_bad = csv->where == CSV_SKIP;
		} else {
			csv_take(csv, byte);
		}
	}
	return CSV_MORE;
}

enum csv_status csv_end(struct csv *csv)
{
	if (csv->is_fresh)
		csv_begin_row(csv);
	return csv_end_row(csv);
}

const char *csv_field(const struct csv *csv, unsigned index)
{
	ASSERT(index < csv->field_count);
	return csv->bytes + csv->starts[index];
}
