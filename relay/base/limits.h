/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * limits.h: every limit of the program that is not configuration, with its reason.
 */

/* One TLS record: 5 bytes of header, 2^14 of text, 256 of expansion (RFC 8446 5.2). */
#define TLS_RECORD_BYTES_MAX (5 + 16384 + 256)

/* What a full record carries. */
#define TLS_RECORD_TEXT_BYTES 16384

/* Records that one key may protect: a third of the 2^24.5 that RFC 8446 5.5 allows AES-GCM. */
#define TLS_RECORDS_MAX 8388608

/* A small I/O buffer holds one whole record behind an unfinished line or reply, in whole pages. */
#define IOBUF_SMALL_BYTES 24576

/*
 * Plaintext that one bulk send takes: 64 KiB of a message, with its commands and our fields in
 * front. Its records fit IOBUF_BULK_BYTES with their overhead.
 */
#define BULK_PLAIN_BYTES 69632

/* A bulk I/O buffer holds four full records, and a part of a fifth. */
#define IOBUF_BULK_BYTES 73728

/* Sources whose connections and messages are counted at a time, by the whole process: 2 MB. */
#define QUOTA_SOURCES 16384

/* RFC 5321 4.5.3.1.4 asks for 512 and room for extensions; DSN and long paths need 2,048. */
#define COMMAND_LINE_BYTES_MAX 2048

/* The same with long-addresses (EXCHANGE 2.5). A small I/O buffer holds it. */
#define LONG_COMMAND_LINE_BYTES_MAX 8000

/* Exchange's MaxAddressLength without XLONGADDR (EXCHANGE 2.5). */
#define ADDRESS_BYTES_MAX 571

/* And with it. */
#define LONG_ADDRESS_BYTES_MAX 1860

/* "1.2.3.4" or a v6 address with its NUL; INET6_ADDRSTRLEN. */
#define ADDRESS_TEXT_BYTES 46

/* Names of connectors, certificates and hosts: a domain name and its NUL. */
#define NAME_BYTES_MAX 256

/* Recipient commands sent ahead of their replies by one transaction. */
#define PIPELINE_DEPTH_MAX 128

/*
 * A header of the PROXY protocol: version 2 allows 65,551 bytes; what balancers send, with all that
 * they tell of TLS, is below 500. A small I/O buffer holds it and the record behind it.
 */
#define PROXY_HEADER_BYTES_MAX 2048

/* How long it is waited for, however it trickles: balancers send it when they have connected. */
#define PROXY_HEADER_TIMEOUT_MS 5000

_Static_assert(IOBUF_SMALL_BYTES >= TLS_RECORD_BYTES_MAX, "a small buffer must hold one record");
_Static_assert(IOBUF_BULK_BYTES >= BULK_PLAIN_BYTES + 6 * 64,
	"five records with their overhead, and an alert");
