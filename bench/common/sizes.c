/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/common/sizes.h"

#include "bench/common/options.h"
#include "bench/common/random.h"

void sizes_init(struct sizes *sizes, uint64_t bytes)
{
	*sizes = (struct sizes){.count = 1, .share_sum = 1, .bytes = {bytes}, .shares = {1}};
	sizes_shuffle(sizes, 0);
}

bool sizes_parse(struct sizes *sizes, const char *text, uint64_t min, uint64_t max)
{
	*sizes = (struct sizes){0};
	do {
		uint64_t bytes;
		uint64_t share;

		text = options_read_number(text, &bytes);
		if (text == NULL || *text != ':' || bytes < min || bytes > max)
			return false;
		text = options_read_number(text + 1, &share);
		if (text == NULL || share == 0 || share > SIZES_SHARE_MAX - sizes->share_sum ||
			sizes->count == SIZES_MAX)
			return false;
		sizes->bytes[sizes->count] = bytes;
		sizes->shares[sizes->count++] = (unsigned)share;
		sizes->share_sum += (unsigned)share;
	} while (*text++ == ',');
	sizes_shuffle(sizes, 0);
	return text[-1] == '\0';
}

void sizes_shuffle(struct sizes *sizes, uint64_t seed)
{
	struct random random = {.state = seed};

	sizes->card_count = 0;
	while (sizes->card_count < SIZES_CARDS_MIN) {
		uint8_t *hand = sizes->cards + sizes->card_count;
		size_t dealt = 0;

		for (unsigned i = 0; i < sizes->count; i++) {
			for (unsigned j = 0; j < sizes->shares[i]; j++)
				hand[dealt++] = (uint8_t)i;
		}
		for (size_t i = dealt; i > 1; i--) {
			size_t other = (size_t)(random_next(&random) % i);
			uint8_t card = hand[i - 1];

			hand[i - 1] = hand[other];
			hand[other] = card;
		}
		sizes->card_count += dealt;
	}
}
