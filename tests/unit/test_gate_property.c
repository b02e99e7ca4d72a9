/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_gate_property.c: random connectors, ranges, zones, balancers and lists that change, against
 * an oracle that looks at every rule for every question. So many addresses lie in one byte that
 * rules meet all the time. The same numbers in each run.
 *
 * Beside the answer itself: the winner's range is inside of all others that have the peer (EXCHANGE
 * 2.1 step 4), the kernel's program would pass exactly who may come in, and a change is refused
 * exactly when the oracle finds a contradiction.
 */

#include "tests/unit/gate_model.h"

#define ROUNDS 1500

/* Of ranges and lists, all others with the peer are around the winner. */
static void check_inside(const struct model *model, unsigned b, const struct found *winner,
	const struct ip *peer, uint32_t zone)
{
	for (unsigned c = 0; c < model->policy.receive_connector_count; c++) {
		const struct receive_connector *connector = &model->connectors[c];

		if (!model->is_bound[c][b] || c == winner->connector)
			continue;
		for (unsigned i = 0; i < connector->remote_ip_range_count; i++) {
			const struct ip_range *range = &connector->remote_ip_ranges[i];

			/* A list has the addresses of all zones. */
			if (ip_range_has(range, peer) && range->zone == 0)
				assert_true(ip_range_holds(range, &winner->range));
			else if (ip_range_has(range, peer) && range->zone == zone &&
				 winner->kind == KIND_RANGE)
				assert_true(ip_range_holds(range, &winner->range));
		}
	}
}

static const struct gate_answer nobody;

static void expect(const struct model *model, const struct found *found, bool is_entered,
	const struct gate_answer *answer)
{
	const bool is_excluded = (found->flags & DOOR_EXCLUDED) != 0;

	assert_int_equal(is_entered, found->kind != KIND_NONE && !is_excluded);
	assert_int_equal(answer->is_excluded, is_excluded);
	assert_int_equal(answer->is_balancer, found->kind == KIND_BALANCER);
	assert_ptr_equal(answer->connector,
		is_entered ? &model->connectors[found->connector] : nobody.connector);
	assert_ptr_equal(answer->partner,
		found->kind == KIND_LIST ? &model->partners[found->partner] : NULL);
	if (found->kind != KIND_NONE)
		assert_int_equal(answer->prefix.bits, found->bits);
}

/* What the program in the kernel does with the tries that it is given. */
static const struct door_value *kernel_value(
	const struct gate *gate, unsigned place, const struct ip *peer)
{
	for (unsigned b = 0; b < gate_binding_count(gate); b++)
		if (address_is_equal(gate_binding_address(gate, b), &places[place]))
			return cidr_lookup(gate_binding_trie(gate, b), peer, NULL);
	return NULL;
}

static void check_kernel(const struct model *model, unsigned exact, const struct ip *peer,
	bool is_entered, const struct gate_answer *answer)
{
	const struct door_value *value = kernel_value(model->gate, exact, peer);
	struct gate_answer resolved;

	if (value == NULL)
		value = kernel_value(model->gate, exact + 1, peer);
	if (value == NULL) {
		assert_false(is_entered);
		return;
	}
	if ((value->flags & DOOR_ZONED) != 0) {
		assert_false(gate_resolve(model->gate, *value, &resolved));
		return;
	}
	assert_int_equal(is_entered, (value->flags & DOOR_EXCLUDED) == 0);
	assert_true(gate_resolve(model->gate, *value, &resolved));
	assert_ptr_equal(resolved.connector, answer->connector);
	assert_ptr_equal(resolved.partner, answer->partner);
	assert_int_equal(resolved.is_excluded, answer->is_excluded);
	assert_int_equal(resolved.is_balancer, answer->is_balancer);
}

static bool is_bound(const struct model *model, unsigned b)
{
	for (unsigned c = 0; c < model->policy.receive_connector_count; c++)
		if (model->is_bound[c][b])
			return true;
	return false;
}

static unsigned entered, refused, fell_through, zoned;

static void check_question(const struct model *model)
{
	const unsigned exact = 2 * roll(2);
	const bool is_v6 = place_is_v6(exact);
	const struct ip peer = roll_ip(is_v6), announced = roll_ip(roll(2));
	const uint32_t zone = is_v6 ? roll(4) : 0;
	const unsigned first = is_bound(model, exact) ? exact : exact + 1;
	struct found found = find(model, exact, &peer, zone, false);
	struct gate_answer answer;
	unsigned at = exact;
	bool is_entered = gate_ask(model->gate, &places[exact], &peer, zone, &answer);

	if (found.kind == KIND_NONE) {
		at = exact + 1;
		found = find(model, at, &peer, zone, false);
		fell_through += found.kind != KIND_NONE && is_bound(model, exact);
	}
	expect(model, &found, is_entered, &answer);
	if (found.kind == KIND_RANGE || found.kind == KIND_LIST)
		check_inside(model, at, &found, &peer, zone);
	check_kernel(model, exact, &peer, is_entered, &answer);
	entered += is_entered;
	refused += answer.is_excluded;
	zoned += is_entered && found.range.zone != 0;
	if (!announces(model, first))
		return;
	found = find(model, exact, &announced, 0, true);
	if (found.kind == KIND_NONE)
		found = find(model, exact + 1, &announced, 0, true);
	is_entered = gate_ask_announced(model->gate, &places[exact], &announced, &answer);
	expect(model, &found, is_entered, &answer);
}

/* ---- changes */

static int find_entry(const struct model *model, unsigned p, const struct prefix *prefix)
{
	for (unsigned e = 0; e < model->counts[p]; e++)
		if (prefix_compare(&model->lists[p][e].prefix, prefix) == 0)
			return (int)e;
	return -1;
}

/* May the prefix not be in the list of p on that binding, where connector c names p? */
static bool contradicts(
	const struct model *model, unsigned p, const struct prefix *prefix, unsigned b, unsigned c)
{
	const struct ip_range own = prefix_range(prefix);

	for (unsigned d = 0; d < model->policy.receive_connector_count; d++) {
		const struct receive_connector *other = &model->connectors[d];

		if (!model->is_bound[d][b])
			continue;
		for (unsigned q = 0; q < PARTNERS; q++)
			if (q != p && names(model, d, q) && find_entry(model, q, prefix) >= 0)
				return true;
		for (unsigned i = 0; d != c && i < other->remote_ip_range_count; i++) {
			const struct ip_range *range = &other->remote_ip_ranges[i];
			const struct ip_range all = {.first = range->first, .last = range->last};
			const bool holds = ip_range_holds(&all, &own);
			const bool is_held = ip_range_holds(&own, &all);

			/* In part, or equal; what is of one zone is never equal. */
			if (ip_range_overlaps(&all, &own) && holds == is_held &&
				!(holds && range->zone != 0))
				return true;
		}
	}
	return false;
}

static bool may_have(const struct model *model, unsigned p, const struct prefix *prefix)
{
	for (unsigned c = 0; c < model->policy.receive_connector_count; c++)
		for (unsigned b = 0; names(model, c, p) && b < BINDINGS; b++)
			if (model->is_bound[c][b] &&
				(prefix->ip.is_v6 == place_is_v6(b) ||
					has_other_family(model, b)) &&
				contradicts(model, p, prefix, b, c))
				return false;
	return true;
}

static unsigned changed, denied;

static void change_one(struct model *model, unsigned p, FILE *errors)
{
	struct prefix prefix = roll_prefix();
	const struct door_value value = {.flags = roll(3) == 0 ? DOOR_EXCLUDED : 0};
	const bool is_removal = roll(3) == 0;
	int at = 0, want = 0;

	if (model->counts[p] > 0 && roll(2))
		prefix = model->lists[p][roll(model->counts[p])].prefix;
	at = find_entry(model, p, &prefix);
	if (is_removal && at < 0)
		want = -ENOENT;
	else if (!is_removal && at >= 0 && model->lists[p][at].flags == value.flags)
		want = -EEXIST;
	else if (at < 0 && model->counts[p] == ENTRIES)
		return;
	else if (at < 0 && !may_have(model, p, &prefix))
		want = -EINVAL;
	model->generations[p] += want == 0;
	assert_int_equal(gate_change_one(model->gate, &model->partners[p], &prefix,
				 is_removal ? NULL : &value, model->generations[p], errors),
		want);
	changed += want == 0;
	denied += want == -EINVAL;
	if (want != 0)
		return;
	if (is_removal)
		model->lists[p][at] = model->lists[p][--model->counts[p]];
	else
		model->lists[p][at < 0 ? (int)model->counts[p]++ : at] =
			(struct entry){prefix, value.flags};
}

static void change_all(struct model *model, unsigned p, FILE *errors)
{
	struct gate_stage *stage = NULL;
	struct entry next[ENTRIES];
	unsigned count = 0;
	struct cidr *set = NULL;
	bool is_right = true;
	int rc = 0;

	assert_int_equal(cidr_create(&set), 0);
	for (unsigned wanted = roll(ENTRIES + 1); count < wanted; count++) {
		next[count] = (struct entry){roll_prefix(), roll(3) == 0 ? DOOR_EXCLUDED : 0};
		if (roll(4) != 0 && !may_have(model, p, &next[count].prefix))
			break;
		if (cidr_get(set, &next[count].prefix) != NULL)
			break;
		assert_int_equal(cidr_put(set, &next[count].prefix,
					 (struct door_value){.flags = next[count].flags}),
			0);
		is_right = is_right && may_have(model, p, &next[count].prefix);
	}
	rc = gate_stage_create(model->gate, &model->partners[p], set, errors, &stage);
	cidr_destroy(&set);
	assert_int_equal(rc, is_right ? 0 : -EINVAL);
	denied += rc != 0;
	if (rc != 0)
		return;
	if (roll(4) == 0) {
		gate_stage_destroy(&stage);
		assert_null(stage);
		return;
	}
	gate_stage_commit(&stage, ++model->generations[p]);
	assert_null(stage);
	changed++;
	memcpy(model->lists[p], next, sizeof(next));
	model->counts[p] = count;
}

static void check_set(const struct model *model, unsigned p)
{
	uint64_t generation = 0;
	const struct cidr *set = gate_partner_set(model->gate, &model->partners[p], &generation);

	assert_non_null(set);
	assert_int_equal(generation, model->generations[p]);
	assert_int_equal(cidr_count(set), model->counts[p]);
	for (unsigned e = 0; e < model->counts[p]; e++) {
		const struct door_value *value = cidr_get(set, &model->lists[p][e].prefix);

		assert_non_null(value);
		assert_int_equal(value->flags, model->lists[p][e].flags);
	}
}

static void test_row_1_connector_match_property(void **state)
{
	static struct model model;
	FILE *errors = fopen("/dev/null", "w");

	(void)state;
	assert_non_null(errors);
	places[0] = address_of("192.0.2.1", 25);
	places[1] = address_of("0.0.0.0", 25);
	places[2] = address_of("2001:db8::25", 25);
	places[3] = address_of("::", 25);
	seed = 7;
	for (unsigned round = 0; round < ROUNDS; round++) {
		roll_model(&model);
		for (unsigned change = 0; change < 12; change++) {
			const unsigned p = roll(PARTNERS);
			uint64_t generation;

			for (unsigned i = 0; i < 12; i++)
				check_question(&model);
			if (gate_partner_set(model.gate, &model.partners[p], &generation) == NULL)
				continue;
			if (roll(2))
				change_one(&model, p, errors);
			else
				change_all(&model, p, errors);
			check_set(&model, p);
		}
		gate_destroy(&model.gate);
	}
	assert_int_equal(fclose(errors), 0);
	/* All of it has happened. */
	assert_in_range(entered, ROUNDS, ROUNDS * 144);
	assert_in_range(refused, ROUNDS / 10, ROUNDS * 144);
	assert_in_range(fell_through, ROUNDS / 10, ROUNDS * 144);
	assert_in_range(zoned, ROUNDS / 100, ROUNDS * 144);
	assert_in_range(changed, ROUNDS, ROUNDS * 12);
	assert_in_range(denied, ROUNDS / 10, ROUNDS * 12);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_row_1_connector_match_property),
	};

	return cmocka_run_group_tests_name("gate-property", tests, NULL, NULL);
}
