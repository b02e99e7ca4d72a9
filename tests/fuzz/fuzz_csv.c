/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_csv.c: rows are the same however the input is split; no field has a line end or a NUL, no
 * line gives two rows; and a row that is written as logset.c writes it comes back as it was.
 */

#include "relay/base/csv.h"
#include "relay/base/logset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_BYTES_MAX 4096

static struct csv whole, split, again;

static uint64_t fuzz_mix(uint64_t hash, enum csv_status status, const struct csv *csv)
{
	hash = (hash ^ (uint64_t)status) * 1099511628211U;
	for (unsigned i = 0; status == CSV_ROW && i < csv->field_count; i++) {
		ASSERT(strpbrk(csv_field(csv, i), "\r\n") == NULL);
		hash = (hash ^ text_hash(csv_field(csv, i))) * 1099511628211U;
	}
	return hash;
}

/* What is printable comes back; what is not was made printable before, and comes back, too. */
static void fuzz_write_again(const struct csv *csv)
{
	static struct logset_row row;
	struct span in;

	row.len = 0;
	for (unsigned i = 0; i < csv->field_count; i++) {
		if (i > 0)
			logset_row_comma(&row);
		/* A row with many long fields does not fit. */
		if (sizeof(row.bytes) - row.len < 256)
			return;
		logset_row_field(&row, span_of(csv_field(csv, i)), 128);
	}
	logset_row_end(&row);
	in = span_make(row.bytes, row.len);
	csv_init(&again);
	if (row.len == 2)
		return;
	ASSERT(csv_next(&again, &in) == CSV_ROW && in.len == 0);
	ASSERT(again.field_count == csv->field_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span in = span_make(data, size);
	uint64_t one = 0, other = 0;
	unsigned lines = 1, rows = 0;

	if (size > FUZZ_BYTES_MAX)
		return 0;
	csv_init(&whole);
	csv_init(&split);
	while (in.len > 0) {
		enum csv_status status = csv_next(&whole, &in);

		if (status == CSV_MORE)
			continue;
		rows++;
		one = fuzz_mix(one, status, &whole);
		if (status == CSV_ROW)
			fuzz_write_again(&whole);
	}
	one = fuzz_mix(one, csv_end(&whole), &whole);
	for (size_t i = 0; i < size; i++) {
		struct span byte = span_make(data + i, 1);
		enum csv_status status = csv_next(&split, &byte);

		lines += data[i] == '\n';
		if (status != CSV_MORE)
			other = fuzz_mix(other, status, &split);
	}
	other = fuzz_mix(other, csv_end(&split), &split);
	ASSERT(one == other && rows < lines);
	return 0;
}
