/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/ctl/door_screen.h"

#include "relay/base/clock.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define ENTER "\033[?1049h\033[?25l" /* the alternate screen; no cursor */
#define LEAVE "\033[?25h\033[?1049l"
#define HOME "\033[H"
#define CLEAR_LINE "\033[K"
#define CLEAR_BELOW "\033[J"
#define RESET "\033[0m"

static const char *const styles[] = {
	[SCREEN_PLAIN] = "",
	[SCREEN_TITLE] = "\033[7m",
	[SCREEN_HEAD] = "\033[1m",
	[SCREEN_ALERT] = "\033[1;31m",
	[SCREEN_WARM] = "\033[33m",
	[SCREEN_FAINT] = "\033[2m",
};

static struct {
	bool is_terminal;
	bool has_colour;
	bool is_drawn;  /* the first block was */
	bool has_modes; /* of standard input */
	bool has_keys;  /* and it is not at its end */
	struct termios modes;
	sigset_t mask; /* while waiting */
} screen;

static volatile sig_atomic_t signal_end, signal_size, signal_stop;

static void on_signal(int number)
{
	if (number == SIGWINCH)
		signal_size = 1;
	else if (number == SIGTSTP)
		signal_stop = 1;
	else
		signal_end = 1;
}

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGTSTP};

/* Signals come while we wait, and at no other time. */
static void signals_take(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	sigset_t blocked;

	(void)sigemptyset(&blocked);
	for (unsigned i = 0; i < COUNT_OF(signals); i++) {
		(void)sigaction(signals[i], &action, NULL);
		(void)sigaddset(&blocked, signals[i]);
	}
	(void)sigprocmask(SIG_BLOCK, &blocked, &screen.mask);
	for (unsigned i = 0; i < COUNT_OF(signals); i++)
		(void)sigdelset(&screen.mask, signals[i]);
}

/* Keys come one by one and are not shown; ^C and ^Z go on being signals. */
static void modes_take(void)
{
	struct termios modes;

	screen.has_modes = tcgetattr(STDIN_FILENO, &screen.modes) == 0;
	screen.has_keys = screen.has_modes;
	if (!screen.has_modes)
		return;
	modes = screen.modes;
	modes.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	modes.c_cc[VMIN] = 1;
	modes.c_cc[VTIME] = 0;
	(void)tcsetattr(STDIN_FILENO, TCSANOW, &modes);
}

static void modes_give_back(void)
{
	if (screen.has_modes)
		(void)tcsetattr(STDIN_FILENO, TCSANOW, &screen.modes);
}

bool screen_open(void)
{
	const char *term = getenv("TERM");
	const char *no_colour = getenv("NO_COLOR"); /* no-color.org */

	screen.is_terminal =
		isatty(STDOUT_FILENO) == 1 && (term == NULL || strcmp(term, "dumb") != 0);
	screen.has_colour = no_colour == NULL || *no_colour == '\0';
	signals_take();
	if (!screen.is_terminal)
		return false;
	modes_take();
	(void)fputs(ENTER, stdout);
	(void)fflush(stdout);
	return true;
}

void screen_close(void)
{
	if (!screen.is_terminal)
		return;
	(void)fputs(LEAVE, stdout);
	(void)fflush(stdout);
	modes_give_back();
	screen.is_terminal = false;
}

/* ^Z: the shell gets its terminal as it was, and we take it again when we are let go on. */
static void screen_stop(void)
{
	if (screen.is_terminal) {
		(void)fputs(LEAVE, stdout);
		(void)fflush(stdout);
		modes_give_back();
	}
	(void)raise(SIGSTOP);
	if (screen.is_terminal) {
		modes_take();
		(void)fputs(ENTER, stdout);
	}
}

struct screen_size screen_size(void)
{
	struct winsize size = {0};

	if (screen.is_terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 &&
		size.ws_col > 0)
		return (struct screen_size){size.ws_row, size.ws_col};
	return (struct screen_size){
		screen.is_terminal ? 24 : SCREEN_LINES_MAX, screen.is_terminal ? 80 : 120};
}

void screen_add(struct screen_frame *frame, enum screen_style style, const char *format, ...)
{
	struct screen_line *line = &frame->lines[frame->count];
	va_list args;

	if (frame->count == SCREEN_LINES_MAX)
		return;
	frame->count++;
	line->style = style;
	va_start(args, format);
	(void)vsnprintf(line->text, sizeof(line->text), format, args);
	va_end(args);
	for (char *at = line->text; *at != '\0'; at++)
		if ((unsigned char)*at < ' ' || *at == 0x7f)
			*at = '?';
}

/* How many bytes of UTF-8 fill so many columns at the most. */
static int bytes_of(const char *text, unsigned columns)
{
	const char *at = text;

	for (; *at != '\0'; at++) {
		if ((*at & 0xc0) == 0x80)
			continue;
		if (columns == 0)
			break;
		columns--;
	}
	return (int)(at - text);
}

static void draw_line(const struct screen_line *line, unsigned columns)
{
	const int len = bytes_of(line->text, columns);
	const char *style =
		screen.has_colour || line->style <= SCREEN_HEAD ? styles[line->style] : "";

	(void)printf("%s%.*s", style, len, line->text);
	if (line->style == SCREEN_TITLE) /* the bar goes on to the edge */
		for (size_t at = strlen(line->text); at < columns; at++)
			(void)putchar(' ');
	(void)printf("%s" CLEAR_LINE, *style != '\0' ? RESET : "");
}

bool screen_draw(const struct screen_frame *frame)
{
	const struct screen_size size = screen_size();

	if (!screen.is_terminal) {
		if (screen.is_drawn)
			(void)putchar('\n');
		screen.is_drawn = true;
		for (unsigned i = 0; i < frame->count; i++)
			(void)puts(frame->lines[i].text);
		return fflush(stdout) == 0;
	}
	(void)fputs(HOME, stdout);
	for (unsigned i = 0; i < frame->count && i < size.rows; i++) {
		if (i > 0)
			(void)fputs("\r\n", stdout);
		draw_line(&frame->lines[i], size.columns);
	}
	if (frame->count < size.rows)
		(void)fputs("\r\n" CLEAR_BELOW, stdout);
	return fflush(stdout) == 0;
}

/* A key, if there is one. */
static enum screen_wish key_take(void)
{
	char key;
	ssize_t len = read(STDIN_FILENO, &key, 1);

	if (len == 1)
		return key == 'q' || key == 'Q' || key == 4 ? SCREEN_FINISH : SCREEN_AGAIN;
	if (len < 0 && (errno == EAGAIN || errno == EINTR))
		return SCREEN_AGAIN;
	screen.has_keys = false; /* it is closed */
	return SCREEN_AGAIN;
}

enum screen_wish screen_wait(uint64_t due_ms)
{
	struct pollfd keys = {.fd = STDIN_FILENO, .events = POLLIN};

	for (;;) {
		const uint64_t now_ms = clock_now_ms();
		const uint64_t left_ms = now_ms < due_ms ? due_ms - now_ms : 0;
		const struct timespec left = {.tv_sec = (time_t)(left_ms / 1000),
			.tv_nsec = (long)(left_ms % 1000) * 1000000};
		const bool has_keys = screen.is_terminal && screen.has_keys;
		const int count = ppoll(&keys, has_keys ? 1 : 0, &left, &screen.mask);

		if (signal_end != 0)
			return SCREEN_FINISH;
		if (signal_stop != 0) {
			signal_stop = 0;
			screen_stop();
			return SCREEN_AGAIN;
		}
		if (signal_size != 0) {
			signal_size = 0;
			return SCREEN_AGAIN;
		}
		if (count > 0)
			return key_take();
		if (count == 0)
			return SCREEN_NEXT;
	}
}
