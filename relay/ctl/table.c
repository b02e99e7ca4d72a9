/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/ctl.h"

#include <stdlib.h>
#include <string.h>

/* Columns of one UTF-8 text on a terminal, near enough: its characters. */
static int text_columns(const char *text)
{
	int columns = 0;

	for (; *text != '\0'; text++)
		if ((*text & 0xc0) != 0x80)
			columns++;
	return columns;
}

void ctl_print_safe(const char *text)
{
	for (; *text != '\0'; text++)
		(void)putchar((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text);
}

void ctl_print_json(const char *text)
{
	(void)putchar('"');
	for (; *text != '\0'; text++) {
		unsigned char byte = (unsigned char)*text;

		if (byte == '"' || byte == '\\')
			(void)printf("\\%c", byte);
		else if (byte < ' ' || byte == 0x7f)
			(void)printf("\\u%04x", byte);
		else
			(void)putchar(byte);
	}
	(void)putchar('"');
}

void ctl_table_init(struct ctl_table *table, const char *const *columns, unsigned count)
{
	ASSERT(count > 0 && count <= CTL_COLUMNS_MAX);
	*table = (struct ctl_table){.columns = columns, .column_count = count};
}

void ctl_table_create_row(struct ctl_table *table, const char *const *cells)
{
	struct ctl_row *rows =
		reallocarray(table->rows, table->row_count + 1, sizeof(*table->rows));

	if (rows == NULL) {
		table->out_of_memory = true;
		return;
	}
	table->rows = rows;
	for (unsigned i = 0; i < table->column_count; i++) {
		rows[table->row_count].cells[i] = strdup(cells[i] != NULL ? cells[i] : "");
		table->out_of_memory |= rows[table->row_count].cells[i] == NULL;
	}
	table->row_count++;
}

static int table_free(struct ctl_table *table)
{
	bool out_of_memory = table->out_of_memory;

	for (unsigned i = 0; i < table->row_count; i++)
		for (unsigned j = 0; j < table->column_count; j++)
			free(table->rows[i].cells[j]);
	free(table->rows);
	*table = (struct ctl_table){0};
	if (out_of_memory)
		ctl_error("out of memory");
	return out_of_memory ? CTL_FAILED : CTL_OK;
}

static void print_cell(const struct ctl_table *table, unsigned column, const char *text, int width)
{
	const bool is_last = column + 1 == table->column_count;
	const int blanks = width - text_columns(text);

	if ((table->right & BIT(column)) != 0)
		(void)printf("%*s", blanks, "");
	ctl_print_safe(text);
	if (!is_last)
		(void)printf("%*s", (table->right & BIT(column)) != 0 ? 2 : blanks + 2, "");
}

static void table_print(const struct ctl_table *table)
{
	int widths[CTL_COLUMNS_MAX] = {0};

	for (unsigned j = 0; j < table->column_count; j++) {
		widths[j] = text_columns(table->columns[j]);
		for (unsigned i = 0; i < table->row_count; i++) {
			int columns = text_columns(table->rows[i].cells[j]);

			widths[j] = columns > widths[j] ? columns : widths[j];
		}
	}
	for (unsigned j = 0; j < table->column_count; j++)
		print_cell(table, j, table->columns[j], widths[j]);
	(void)putchar('\n');
	for (unsigned i = 0; i < table->row_count; i++) {
		for (unsigned j = 0; j < table->column_count; j++)
			print_cell(table, j, table->rows[i].cells[j], widths[j]);
		(void)putchar('\n');
	}
}

static void table_print_json(const struct ctl_table *table)
{
	(void)putchar('[');
	for (unsigned i = 0; i < table->row_count; i++) {
		(void)fputs(i == 0 ? "\n  {" : ",\n  {", stdout);
		for (unsigned j = 0; j < table->column_count; j++) {
			(void)fputs(j == 0 ? "" : ", ", stdout);
			ctl_print_json(table->columns[j]);
			(void)fputs(": ", stdout);
			ctl_print_json(table->rows[i].cells[j]);
		}
		(void)putchar('}');
	}
	(void)fputs(table->row_count == 0 ? "]\n" : "\n]\n", stdout);
}

int ctl_table_finish(const struct ctl *ctl, struct ctl_table *table)
{
	if (table->out_of_memory)
		return table_free(table);
	if (ctl->json)
		table_print_json(table);
	else
		table_print(table);
	return table_free(table);
}

int ctl_table_finish_list(const struct ctl *ctl, struct ctl_table *table)
{
	int width = 0;

	ASSERT(table->column_count == 2);
	if (table->out_of_memory)
		return table_free(table);
	for (unsigned i = 0; i < table->row_count; i++) {
		int columns = text_columns(table->rows[i].cells[0]);

		width = columns > width ? columns : width;
	}
	if (ctl->json)
		(void)putchar('{');
	for (unsigned i = 0; i < table->row_count; i++) {
		char *const *cells = table->rows[i].cells;

		if (ctl->json) {
			(void)fputs(i == 0 ? "\n  " : ",\n  ", stdout);
			ctl_print_json(cells[0]);
			(void)fputs(": ", stdout);
			ctl_print_json(cells[1]);
			continue;
		}
		(void)printf("%-*s : ", width, cells[0]);
		ctl_print_safe(cells[1]);
		(void)putchar('\n');
	}
	if (ctl->json)
		(void)fputs("\n}\n", stdout);
	return table_free(table);
}
