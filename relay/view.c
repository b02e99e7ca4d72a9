/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/view.h"

#include <errno.h>
#include <stdlib.h>

static int view_create_tls(struct view *view, FILE *errors)
{
	const struct policy *policy = view->world->policy;
	int rc = 0;

	view->tls_contexts =
		calloc(policy->receive_connector_count + 1, sizeof(*view->tls_contexts));
	if (view->tls_contexts == NULL)
		return -ENOMEM;
	for (unsigned i = 0; rc == 0 && i < policy->receive_connector_count; i++) {
		const struct receive_connector *connector = &policy->receive_connectors[i];
		char error[512] = "no memory";

		if (!connector->enabled || connector->tls == TLS_MODE_NONE ||
			connector->tls_settings.certificate == NULL)
			continue;
		rc = tls_context_create_receive(connector, view->world->trusts->receive[i],
			&view->tls_contexts[i], error, sizeof(error));
		if (rc < 0)
			(void)fprintf(errors, "%s:%u: receive-connector \"%s\": %s\n", policy->file,
				connector->line, connector->name, error);
	}
	return rc;
}

int view_create(struct world *world, struct conn_net *net, unsigned worker_id, FILE *errors,
	struct view **out)
{
	struct view *view = calloc(1, sizeof(*view));
	int rc;

	if (view == NULL)
		return -ENOMEM;
	link_init(&view->link);
	view->world = world_hold(world);
	rc = view_create_tls(view, errors);
	if (rc == 0)
		rc = router_create(&(struct router_options){.policy = world->policy,
					   .trusts = world->trusts,
					   .net = net,
					   .worker_id = worker_id},
			errors, &view->router);
	if (rc < 0)
		view_destroy(&view);
	else
		*out = view;
	return rc;
}

int view_open(struct view *view)
{
	int rc = router_open(view->router);

	view_refresh_tls(view);
	return rc;
}

void view_retire(struct view *view)
{
	view->is_retired = true;
	router_drain(view->router);
}

bool view_is_done(const struct view *view)
{
	return view->is_retired && view->sessions == 0 && router_is_closed(view->router);
}

void view_destroy(struct view **out)
{
	struct view *view = *out;

	*out = NULL;
	if (view == NULL)
		return;
	link_remove(&view->link);
	router_destroy(&view->router);
	for (unsigned i = 0;
		view->tls_contexts != NULL && i < view->world->policy->receive_connector_count; i++)
		tls_context_destroy(&view->tls_contexts[i]);
	free(view->tls_contexts);
	world_release(&view->world);
	free(view);
}

const struct tls_context *view_tls(
	const struct view *view, const struct receive_connector *connector)
{
	const struct tls_context *context = &view->tls_contexts[connector->index];

	return context->ctx == NULL ? NULL : context;
}

void view_refresh_tls(struct view *view)
{
	const struct world *world = view->world;

	for (unsigned i = 0; i < world->policy->receive_connector_count; i++) {
		if (view->tls_contexts[i].ctx != NULL)
			tls_context_refresh(&view->tls_contexts[i], world->trusts->generation);
	}
	router_refresh_tls(view->router);
}
