/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * stats.h: the one list of counters. Each worker counts in a block of its own;
 * whoever reports sums the blocks. Names are what the "stats" log event prints
 * and what postern(8) explains.
 */

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define STATS_LIST(X)                                                                            \
	X(sessions)                /* inbound connections that got a session */                  \
	X(sessions_refused)        /* inbound connections answered 421: no room for them */      \
	X(sessions_refused_source) /* of these, for the limits of one source */                  \
	X(sessions_refused_rate)   /* of these, for connection-rate-limit, by us */              \
	X(sessions_unmatched)      /* closed unserved: no receive connector is for that peer */  \
	X(proxy_headers)           /* connections that a balancer has announced */               \
	X(proxy_headers_bad)       /* closed: no whole and right PROXY header came in time */    \
	X(xclients)                /* clients that a front end has announced */                  \
	X(xclient_refused)         /* XCLIENT of those who may not use it */                     \
	X(sessions_unserved)       /* ended, as a list lets their peer in no more */             \
	X(quota_untracked)         /* sessions whose source was not counted: too many sources */ \
	X(sessions_timed_out)      /* ended by a deadline */                                     \
	X(protocol_errors)         /* commands answered 5xx for their form or order */           \
	X(tls_handshakes)          /* inbound, completed */                                      \
	X(tls_resumed)             /* of these, resumed */                                       \
	X(tls_failed)              /* inbound handshakes that failed */                          \
	X(tls_plaintext_injected)  /* plaintext found behind STARTTLS */                         \
	X(client_cert_refused)     /* MAIL refused for the client certificate */                 \
	X(revocation_forgiven)     /* revocation lists that could not be had, under soft */      \
	X(tls_required_refused)    /* MAIL refused for lack of TLS */                            \
	X(secure_refused_no_tls)   /* MAIL of a listed domain refused: no TLS */                 \
	X(secure_refused_no_certificate) /* no certificate */                                    \
	X(secure_refused_chain)          /* the certificate is not valid for the partner */      \
	X(secure_refused_name)           /* it is valid, but of another name */                  \
	X(secure_refused_connector)      /* the connector is not domain-secure */                \
	X(direct_trust_refused)          /* MAIL refused: none of our servers' keys */           \
	X(not_authenticated)             /* MAIL refused: no right to submit */                  \
	X(own_domain_refused)       /* MAIL refused: a partner that claims one of our domains */ \
	X(relay_refused)            /* RCPT refused: the recipient is not ours */                \
	X(recipient_domain_refused) /* RCPT refused: reserved or single-label domain */          \
	X(message_rate_refused)     /* MAIL refused: message-rate-limit */                       \
	X(tarpitted)                /* error replies that were held back */                      \
	X(headers_removed)          /* fields that the header firewall took out */               \
	X(messages_secured)         /* accepted from a proved partner */                         \
	X(messages)                 /* accepted by the next hop */                               \
	X(message_bytes)            /* their bodies, unstuffed */                                \
	X(messages_refused)         /* answered 4xx or 5xx after the body */                     \
	X(body_bare_newline)        /* bodies with a bare CR or LF */                            \
	X(body_nul)                 /* bodies with a NUL */                                      \
	X(nexthop_connects)         /* connections tried */                                      \
	X(nexthop_connect_failed)   /* that did not get to a usable session */                   \
	X(nexthop_reused)           /* transactions on a pooled session */                       \
	X(nexthop_replayed)         /* transactions begun anew on a fresh session */             \
	X(nexthop_lost)             /* sessions lost in the middle of a transaction */           \
	X(nexthop_tls)              /* outbound handshakes completed */                          \
	X(nexthop_tls_resumed)      /* of these, resumed */                                      \
	X(nexthop_tls_failed)       /* outbound handshakes failed or certificate refused */      \
	X(nexthop_secured)          /* sessions with a next hop that proved to be a partner */   \
	X(messages_sent_secured)    /* messages that such a session took */                      \
	X(secure_send_refused)      /* deliveries refused: their domain needs a secured path */  \
	X(nexthop_identity_refused) /* sessions ended: the next hop does not hear who it is */   \
	X(tls_downgraded)           /* sessions begun again in clear after a failed handshake */ \
	X(dns_queries)              /* questions asked of the name servers, or of their cache */ \
	X(dns_failed)               /* domains whose servers could not be looked up */           \
	X(queue_accepted)           /* messages that the spool took from clients */              \
	X(queue_bytes)              /* their bodies */                                           \
	X(queue_refused)            /* MAIL or messages refused: no room, or back pressure */    \
	X(queue_tarpitted)          /* MAIL held back under back pressure */                     \
	X(queue_through)            /* messages that went straight through, uncommitted */       \
	X(queue_through_kept)       /* that were to, and the spool took them after all */        \
	X(queue_through_doubtful)   /* of these: the next hop may have them, too */              \
	X(queue_attempts)           /* deliveries begun from the queue */                        \
	X(queue_sent)               /* recipients that next hops took from the queue */          \
	X(queue_failed)             /* recipients given up for a reply of 5xx */                 \
	X(queue_expired)            /* recipients given up for their age */                      \
	X(queue_deferred)           /* attempts after which recipients wait on */                \
	X(queue_retries)            /* times that a queue came into Retry */                     \
	X(queue_removed)            /* messages removed by an administrator */                   \
	X(notices_failed)           /* notices of failure made */                                \
	X(notices_delayed)          /* of delay */                                               \
	X(notices_success)          /* of success, or that a message was relayed */              \
	X(notices_unmade)           /* that could not be made then */                            \
	X(spool_writes)             /* writes to the spool, each of one batch */                 \
	X(spool_flushes)            /* of these, with a flush */                                 \
	X(spool_records)            /* records in them */                                        \
	X(spool_bytes)              /* bytes written, padding included */                        \
	X(spool_reads)              /* reads from it: what no batch has any more */              \
	X(spool_errors)             /* writes, flushes and reads of the spool that failed */     \
	X(spool_moved)              /* messages moved to the end of the log */                   \
	X(spool_torn)               /* torn ends found by a replay: never acknowledged */        \
	X(spool_corrupt)            /* records found damaged, by a replay or later */            \
	X(ktls_rx)                  /* directions handed to the kernel: receive */               \
	X(ktls_tx)                  /* and send */                                               \
	X(ktls_auto)                /* receive sides given by "auto" once it paid */             \
	X(ktls_failed)              /* hand-offs that the kernel refused: stayed in userspace */ \
	X(ktls_key_update)          /* KeyUpdate records met on a kernel receive side */         \
	X(ktls_rekeyed)             /* of these, followed by new keys */                         \
	X(tls_key_update_closed)    /* sessions closed because the kernel cannot rekey */        \
	X(alerts_unsent)            /* alerts that a full or broken socket did not take */       \
	X(recv_calls)               /* completed receives */                                     \
	X(send_calls)               /* completed sends */                                        \
	X(ring_enters)              /* io_uring_enter system calls of the loop */                \
	X(loop_under_100us)         /* turns that came back to the ring so soon */               \
	X(loop_under_1ms)           /* and so on */                                              \
	X(loop_under_5ms)                                                                        \
	X(loop_under_20ms)                                                                       \
	X(loop_over_20ms)                                                                        \
	X(other_syscalls)   /* system calls beside the ring: socket, setsockopt, sendmsg */      \
	X(copied_bytes)     /* message bytes copied by us, cipher work not counted */            \
	X(buffers_starved)  /* receives that had to wait for a buffer */                         \
	X(log_dropped)      /* log lines lost because the reader of stderr is slow */            \
	X(protolog_dropped) /* rows of the protocol log lost: its disk is slow or full */        \
	X(track_dropped)    /* rows of the message tracking log lost likewise */

/* Of these not the sum counts, but the largest. */
/* clang-format off */
#define STATS_MAX_LIST(X) \
	X(loop_max_us) /* the longest time that a loop was away from its ring */
/* clang-format on */

struct stats {
#define STATS_FIELD(name) _Atomic uint64_t name;
	STATS_LIST(STATS_FIELD)
	STATS_MAX_LIST(STATS_FIELD)
#undef STATS_FIELD
};

/* This thread's block; a block nobody reads until the worker sets its own. */
extern _Thread_local struct stats *stats_mine;

/* Only the owner writes, so a relaxed load and store is enough and costs no lock. */
#define STAT_ADD(name, n)                                                                      \
	atomic_store_explicit(&stats_mine->name,                                               \
		atomic_load_explicit(&stats_mine->name, memory_order_relaxed) + (uint64_t)(n), \
		memory_order_relaxed)
#define STAT(name) STAT_ADD(name, 1)

#define STAT_MAX(name, value)                                                                    \
	do {                                                                                     \
		if (atomic_load_explicit(&stats_mine->name, memory_order_relaxed) < (value))     \
			atomic_store_explicit(&stats_mine->name, (value), memory_order_relaxed); \
	} while (0)

/* Adds every counter of from to sum, and takes the larger of the largest. */
void stats_add(struct stats *sum, const struct stats *from);

/* Writes "name=value ..." for the counters that are not 0; returns the length. */
size_t stats_print(const struct stats *stats, char *out, size_t out_bytes);
