/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/crash/line.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

void line_init(struct line *line, int fd)
{
	const struct timeval wait = {.tv_sec = LINE_WAIT_S};
	const int one = 1;

	line->fd = fd;
	line->at = line->end = 0;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

bool line_connect(struct line *line, uint16_t port)
{
	const struct sockaddr_in to = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		abort();
	if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0) {
		(void)close(fd);
		return false;
	}
	line_init(line, fd);
	return true;
}

void line_close(struct line *line)
{
	(void)close(line->fd);
	line->fd = -1;
}

static bool line_fill(struct line *line)
{
	ssize_t count = recv(line->fd, line->bytes, sizeof(line->bytes), 0);

	if (count <= 0)
		return false;
	line->at = 0;
	line->end = (size_t)count;
	return true;
}

bool line_has_more(const struct line *line)
{
	return line->at < line->end;
}

bool line_read(struct line *line, char out[LINE_BYTES_MAX])
{
	size_t length = 0;

	for (;;) {
		const char *from = line->bytes + line->at;
		size_t left = line->end - line->at;
		const char *end = memchr(from, '\n', left);
		size_t take = end == NULL ? left : (size_t)(end - from) + 1;

		if (length + take >= LINE_BYTES_MAX)
			return false;
		memcpy(out + length, from, take);
		length += take;
		line->at += take;
		if (end != NULL) {
			length--;
			if (length > 0 && out[length - 1] == '\r')
				length--;
			out[length] = '\0';
			return true;
		}
		if (!line_fill(line))
			return false;
	}
}

bool line_read_bytes(struct line *line, char *out, size_t bytes)
{
	while (bytes > 0) {
		size_t take = line->end - line->at;

		if (take == 0 && !line_fill(line))
			return false;
		take = line->end - line->at < bytes ? line->end - line->at : bytes;
		memcpy(out, line->bytes + line->at, take);
		line->at += take;
		out += take;
		bytes -= take;
	}
	return true;
}

bool line_write(const struct line *line, const char *bytes, size_t count)
{
	while (count > 0) {
		ssize_t sent = send(line->fd, bytes, count, MSG_NOSIGNAL);

		if (sent <= 0)
			return false;
		bytes += sent;
		count -= (size_t)sent;
	}
	return true;
}

bool line_say(const struct line *line, const char *text)
{
	return line_write(line, text, strlen(text));
}

int line_reply(struct line *line)
{
	char text[LINE_BYTES_MAX];

	do {
		if (!line_read(line, text) || strlen(text) < 3)
			return -1;
	} while (text[3] == '-');
	return (int)strtol(text, NULL, 10);
}
