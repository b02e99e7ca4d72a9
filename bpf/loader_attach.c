/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#include "bpf/loader_private.h"

#include <errno.h>
#include <linux/if_link.h>
#include <net/if_arp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int program_fd(const struct kernel_door *door, const char *name)
{
	return bpf_program__fd(bpf_object__find_program_by_name(door->object, name));
}

/* ---- a link */

/*
 * Puts a link that was made under its name. Until then it lives as long as this process: a crash
 * before leaves nothing attached, a crash behind leaves it whole.
 */
static int link_pin(const struct kernel_door *door, int link, const char *name, char *why)
{
	char path[192];
	int error = door_fail(door, "bpf_obj_pin");

	if (!pins_path(door, name, path, sizeof(path)))
		return door_explain(why, -ENAMETOOLONG, "%s: too long", door->folder);
	if (error == 0 && bpf_obj_pin(link, path) < 0)
		error = -errno;
	if (error < 0)
		return door_explain(why, error, "%s: cannot be pinned: %s", path, strerror(-error));
	return 0;
}

static void link_unpin(const struct kernel_door *door, const char *name)
{
	char path[192];

	if (pins_path(door, name, path, sizeof(path)))
		(void)unlink(path);
}

/* Another program in place of that of the link, from one packet to the next. */
static int link_replace(const struct kernel_door *door, int link, int program)
{
	int error = door_fail(door, "bpf_link_update");

	if (error == 0 && bpf_link_update(link, program, NULL) < 0)
		error = -errno;
	return error;
}

/* ---- sk_lookup */

static int attach_door(struct kernel_door *door, char *why)
{
	const int program = program_fd(door, "postern_door");
	int error;
	int link;

	if (door->link >= 0 && !door->is_link_dead) {
		error = link_replace(door, door->link, program);
		if (error < 0)
			return door_explain(why, error, "%s/%s: the program cannot be replaced: %s",
				door->folder, DOOR_LINK_PIN, strerror(-error));
		return 0;
	}
	error = door_fail(door, "bpf_link_create");
	link = error < 0 ? -1 : bpf_link_create(program, door->netns, BPF_SK_LOOKUP, NULL);
	if (link < 0) {
		error = error < 0 ? error : -errno;
		return door_explain(why, error,
			"sk_lookup cannot be attached: %s; CAP_NET_ADMIN is needed, and at most 64 "
			"programs are attached to a namespace",
			strerror(-error));
	}
	/* Its namespace is gone, and with it whatever it did. */
	if (door->is_link_dead)
		link_unpin(door, DOOR_LINK_PIN);
	error = link_pin(door, link, DOOR_LINK_PIN, why);
	if (error < 0) {
		(void)close(link);
		return error;
	}
	if (door->link >= 0)
		(void)close(door->link);
	door->link = link;
	door->is_link_dead = false;
	return 0;
}

/* ---- XDP */

/* The address that packets to the interface bear, as postern_shield compares it. */
static int hardware_address(const char *interface, uint64_t *out)
{
	struct ifreq request = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int error = 0;

	if (fd < 0)
		return -errno;
	(void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
	if (ioctl(fd, SIOCGIFHWADDR, &request) < 0)
		error = -errno;
	else if (request.ifr_hwaddr.sa_family != ARPHRD_ETHER &&
		 request.ifr_hwaddr.sa_family != ARPHRD_LOOPBACK)
		error = -EOPNOTSUPP;
	(void)close(fd);
	*out = 0;
	memcpy(out, request.ifr_hwaddr.sa_data, 6);
	return error;
}

/* The link that is pinned, if it is one of the interface as it is now; else -1, and it is gone. */
static int shield_take_up(
	const struct kernel_door *door, const char *pin, unsigned interface, char *why)
{
	struct bpf_link_info info = {0};
	uint32_t len = sizeof(info);
	int link = pins_get(door, pin, PIN_LINK, why);

	if (link == -ENOENT)
		return -1;
	if (link < 0)
		return link;
	if (bpf_obj_get_info_by_fd(link, &info, &len) == 0 && info.type == BPF_LINK_TYPE_XDP) {
		if (info.xdp.ifindex == interface)
			return link;
		/* The interface is another than that time: nothing is attached to this one. */
		link_unpin(door, pin);
		(void)close(link);
		return -1;
	}
	(void)close(link);
	return door_explain(why, -ESTALE,
		"%s/%s: a link of another kind of program; \"posternctl door remove\" removes it",
		door->folder, pin);
}

/* The driver's own XDP, or the kernel's for every driver. */
static int shield_link(const struct kernel_door *door, unsigned interface)
{
	static const uint32_t modes[] = {XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};
	const int program = program_fd(door, "postern_shield");
	int error = door_fail(door, "bpf_link_create");
	int link = -1;

	for (unsigned i = 0; error == 0 && link < 0 && i < COUNT_OF(modes); i++) {
		const struct bpf_link_create_opts options = {
			.sz = sizeof(options), .flags = modes[i]};

		link = bpf_link_create(program, (int)interface, BPF_XDP, &options);
	}
	if (error < 0)
		return error;
	return link < 0 ? -errno : link;
}

static int attach_shield(
	struct kernel_door *door, const struct door_shield *wanted, bool *out_is_new, char *why)
{
	const char *interface = wanted->interface;
	const uint32_t index = if_nametoindex(interface);
	char pin[DOOR_SHIELD_PIN_BYTES];
	uint64_t address;
	int error;
	int link;

	if (index == 0)
		return door_explain(why, -ENODEV, "xdp:%s: no such interface", interface);
	error = hardware_address(interface, &address);
	if (error < 0)
		return door_explain(why, error, "xdp:%s: not an Ethernet interface", interface);
	if (bpf_map_update_elem(door->maps[DOOR_MAP_SHIELDS], &index, &address, BPF_ANY) < 0)
		return door_explain(why, -errno, "xdp:%s: %s", interface, strerror(errno));
	pins_shield_name(interface, pin, sizeof(pin));
	link = shield_take_up(door, pin, index, why);
	if (link < -1)
		return link;
	*out_is_new = link < 0;
	if (*out_is_new) {
		link = shield_link(door, index);
		if (link < 0)
			return door_explain(why, link,
				"xdp:%s: cannot be attached: %s; another XDP program may be "
				"there (ip link show)",
				interface, strerror(-link));
		error = link_pin(door, link, pin, why);
	} else {
		error = link_replace(door, link, program_fd(door, "postern_shield"));
		if (error < 0)
			(void)door_explain(why, error, "xdp:%s: cannot be replaced: %s", interface,
				strerror(-error));
	}
	if (error < 0) {
		(void)close(link);
		return error;
	}
	door->shields[door->shield_count] = *wanted;
	door->shields[door->shield_count].link = link;
	door->shield_count++;
	return 0;
}

static void detach_shield(const struct kernel_door *door, const struct door_shield *shield)
{
	char pin[DOOR_SHIELD_PIN_BYTES];

	(void)bpf_link_detach(shield->link);
	pins_shield_name(shield->interface, pin, sizeof(pin));
	link_unpin(door, pin);
}

/* Detaches what is pinned for an interface that is no longer wanted. */
static int shield_is_wanted(void *owner, int folder, const char *name)
{
	struct kernel_door *door = owner;
	struct door_shield shield;
	char why[KERNEL_DOOR_WHY_BYTES];

	(void)folder;
	if (!pins_shield_interface(name, shield.interface))
		return 0;
	for (unsigned i = 0; i < door->wanted_count; i++) {
		if (strcmp(door->wanted[i].interface, shield.interface) == 0)
			return 0;
	}
	shield.link = pins_get(door, name, PIN_LINK, why);
	if (shield.link >= 0) {
		detach_shield(door, &shield);
		(void)close(shield.link);
	}
	return 0;
}

static void shields_close(struct kernel_door *door)
{
	for (unsigned i = 0; i < door->shield_count; i++)
		(void)close(door->shields[i].link);
	door->shield_count = 0;
}

int kernel_door_attach(struct kernel_door *door, char why[static KERNEL_DOOR_WHY_BYTES])
{
	const bool is_new = door->link < 0 || door->is_link_dead;
	bool shield_is_new[DOOR_SHIELDS_MAX] = {false};
	int error = attach_door(door, why);

	if (error < 0)
		return error;
	shields_close(door);
	for (unsigned i = 0; error == 0 && i < door->wanted_count; i++)
		error = attach_shield(door, &door->wanted[i], &shield_is_new[i], why);
	if (error < 0) {
		/* As it was before: what is new goes, what was replaced has the same maps. */
		for (unsigned i = 0; i < door->shield_count; i++) {
			if (shield_is_new[i])
				detach_shield(door, &door->shields[i]);
		}
		shields_close(door);
		if (is_new) {
			link_unpin(door, DOOR_LINK_PIN);
			(void)close(door->link);
			door->link = -1;
		}
		return error;
	}
	why[0] = '\0';
	(void)pins_each(door->lock, shield_is_wanted, door);
	pins_remove_others(door, why);
	return 0;
}
