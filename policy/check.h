/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * check.h: private to policy/. The parts of check.c. A keyword that was set wrongly has its
 * message already, so these ask whether it was set, not whether it took effect.
 */

#include "policy/config.h"

bool check_is_set(const struct config *config, unsigned section, const char *keyword);

/* Whether its texts, if any, took effect. */
bool check_is_sound(const struct config *config, unsigned section, const char *keyword);

/* The line of the index'th of those texts of keyword that took effect. */
unsigned check_element_line(
	const struct config *config, unsigned section, const char *keyword, unsigned index);

/* One connector by itself and what it refers to; check_connector.c. */
void check_receive(struct config *config, unsigned s, struct receive_connector *connector);
void check_send(struct config *config, unsigned s, const struct send_connector *connector);

/* Who decides which addresses may connect; check_door.c. s: the section transport. */
void check_door(struct config *config, unsigned s);
void check_remote_partners(
	struct config *config, unsigned s, const struct receive_connector *connector);

/* The spool, the queues and the message tracking log; check_queue.c. s: the section transport. */
void check_queue(struct config *config, unsigned s);

/* There is a spool-folder; or a wrong one, which has its message. */
bool check_is_queue_possible(const struct config *config);

/* Between connectors: shared bindings, and mail to ourselves; check_binding.c. */
void check_bindings(struct config *config);
void check_loops(struct config *config);

/* Domains, anchors and pins; check_partner.c. */
void check_partners(struct config *config);
