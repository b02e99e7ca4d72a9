/* SPDX-License-Identifier: Apache-2.0 */

/*
 * replay.c FILE...: gives each file to a fuzz target, once. Linked in place of
 * libFuzzer, so that the committed corpus is tried in every build of the tests.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_BYTES_MAX (1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input is a block of its own length, so that AddressSanitizer sees a read behind it. */
static int replay_one(const char *path)
{
	static uint8_t room[INPUT_BYTES_MAX];
	FILE *file = fopen(path, "rb");
	uint8_t *input;
	size_t size;

	if (file == NULL) {
		perror(path);
		return 1;
	}
	size = fread(room, 1, sizeof(room), file);
	(void)fclose(file);
	input = malloc(size > 0 ? size : 1);
	if (input == NULL)
		return 1;
	memcpy(input, room, size);
	(void)LLVMFuzzerTestOneInput(input, size);
	free(input);
	return 0;
}

int main(int argc, char **argv)
{
	int failed = 0;

	for (int i = 1; i < argc; i++)
		failed |= replay_one(argv[i]);
	(void)printf("%d inputs\n", argc - 1);
	return failed;
}
