# SPDX-License-Identifier: Apache-2.0
#
# Postern: targets are listed by "make help".
# Everything that is made lies under build/; VARIANT gives sanitizer builds a folder of their own.

VERSION := 0.1.0
VARIANT ?= release
B := build/$(VARIANT)
CC ?= gcc
DESTDIR ?=
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
FUZZ_SECONDS ?= 30

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:

# ---- what is compiled, and how

WARN := -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wstrict-prototypes \
	-Wmissing-prototypes -Wvla -Wcast-qual -Wformat=2 -Wundef -Wimplicit-fallthrough \
	-Wswitch-enum -Wwrite-strings -Wpointer-arith -Wcast-align -Wdouble-promotion \
	-Wnull-dereference -Werror
CFLAGS ?= -O2 -g
HARDEN_release := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
HARDEN_asan := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
HARDEN_tsan := -fsanitize=thread -fno-omit-frame-pointer
HARDEN_fuzz := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined \
	-fno-omit-frame-pointer
LDHARDEN_release := -pie -Wl,-z,relro,-z,now
LDHARDEN_asan := -fsanitize=address,undefined
LDHARDEN_tsan := -fsanitize=thread
LDHARDEN_fuzz := -fsanitize=address,undefined
DEFINES := -I. -D_GNU_SOURCE -DPOSTERN_VERSION='"$(VERSION)"'
ALL_CFLAGS = -std=gnu17 $(WARN) $(CFLAGS) $(HARDEN_$(VARIANT)) $(DEFINES) $(CPPFLAGS) -pthread
ALL_LDFLAGS = $(LDHARDEN_$(VARIANT)) -pthread $(LDFLAGS)
LIBS := -lssl -lcrypto -luring -lconfuse -lidn2 -lunbound -ljansson -lbpf -lcap-ng -lisal

CORE_SRC := $(wildcard relay/base/*.c policy/*.c bpf/loader*.c relay/pki/*.c relay/net/*.c relay/smtp/*.c relay/mail/*.c) \
	$(filter-out relay/main.c,$(wildcard relay/*.c))
CORE_OBJ := $(CORE_SRC:%.c=$(B)/%.o)
CTL_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard relay/ctl/*.c))
UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$(B)/unit/%)
TOOL_SRC := $(wildcard tests/tools/*.c)
E2E_SRC := $(wildcard tests/e2e/*.c)
DOOR_SRC := $(wildcard tests/door/*.c)
CRASH_SRC := $(wildcard tests/crash/*.c)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_BIN := $(FUZZ_SRC:tests/fuzz/%.c=$(B)/fuzz/%)
BENCH_SRC := $(wildcard bench/*.c bench/common/*.c)

# In these folders each file with a main() is a program, and all others belong to every program.
mains = $(if $(1),$(shell grep -lw '^int main' $(1)))
parts = $(patsubst %.c,$(B)/%.o,$(filter-out $(call mains,$(1)),$(1)))
TOOL_BIN := $(patsubst tests/tools/%.c,$(B)/tools/%,$(call mains,$(TOOL_SRC)))
DOOR_BIN := $(patsubst tests/door/%.c,$(B)/door/%,$(call mains,$(DOOR_SRC)))
CRASH_BIN := $(patsubst tests/crash/%.c,$(B)/crash/%,$(call mains,$(CRASH_SRC)))
E2E_BIN := $(patsubst tests/e2e/%.c,$(B)/e2e/%,$(call mains,$(E2E_SRC)))
BENCH_BIN := $(patsubst bench/%.c,$(B)/bench/%,$(call mains,$(BENCH_SRC)))

# One link command for every program; its own libraries stand in LIBS_OWN.
define link
@mkdir -p $(@D)
@echo "  LD    $@"
$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS_OWN) $(LIBS)
endef

.PHONY: all
all: $(B)/postern $(B)/posternctl ## build the relay and its tool (default)

$(B)/postern: $(B)/relay/main.o $(CORE_OBJ)
	$(link)

$(B)/posternctl: $(CTL_OBJ) $(B)/libpostern.a
	$(link)

# ---- the programs in the kernel: an object, and a header that carries it

CLANG ?= $(firstword $(shell command -v clang clang-19 clang-16 clang-14) clang)
# Debian has it in /usr/sbin, which is not in the PATH of all.
BPFTOOL ?= $(firstword $(shell PATH="$$PATH:/usr/sbin:/sbin" command -v bpftool) bpftool)
MULTIARCH := $(shell gcc -print-multiarch 2>/dev/null)
BPF_CFLAGS := -O2 -g -Wall -Wextra -Werror -target bpf -I/usr/include/$(MULTIARCH) -I.
SKELETON := $(B)/bpf/door.skel.h
DEFINES += -isystem $(B)/bpf

$(B)/bpf/door.bpf.o: bpf/door.bpf.c Makefile
	@mkdir -p $(@D)
	@command -v $(CLANG) >/dev/null || { \
		echo "$(CLANG): not found, and needed for $<: make deps" >&2; exit 1; }
	@echo "  BPF   $<"
	$(Q)$(CLANG) $(BPF_CFLAGS) -MMD -MP -c -o $@ $<

$(SKELETON): $(B)/bpf/door.bpf.o
	@command -v $(BPFTOOL) >/dev/null || { \
		echo "$(BPFTOOL): not found, and needed for $@: make deps" >&2; exit 1; }
	@echo "  SKEL  $@"
	$(Q){ echo '/* NOLINTBEGIN */'; $(BPFTOOL) gen skeleton $< name door_bpf && \
		echo '/* NOLINTEND */'; } >$@

# Before there are any .d files.
$(B)/bpf/loader.o: $(SKELETON)

$(B)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/libpostern.a: $(CORE_OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(B)/unit/%: LIBS_OWN := -lcmocka
# These let memory run out.
$(addprefix $(B)/unit/test_,cidr gate_memory ip_list_compare ip_list_import): LIBS_OWN := -lcmocka \
	-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
$(B)/unit/%: $(B)/tests/unit/%.o $(B)/libpostern.a
	$(link)

# What the programs in bench/ share is not in the library either.
BENCH_UNIT := $(filter $(B)/unit/test_bench_% $(B)/unit/test_stream,$(UNIT_BIN))
$(BENCH_UNIT): $(call parts,$(BENCH_SRC))
$(BENCH_UNIT): LIBS_OWN := -lcmocka -lm $(B)/libpostern.a

# What belongs to posternctl alone is not in the library.
$(B)/unit/test_filter $(B)/fuzz/fuzz_filter: $(B)/relay/ctl/filter.o

$(B)/tools/%: $(B)/tests/tools/%.o $(call parts,$(TOOL_SRC)) $(B)/libpostern.a
	$(link)

$(B)/e2e/%: $(B)/tests/e2e/%.o $(call parts,$(E2E_SRC)) $(B)/libpostern.a
	$(link)

# Of the matrix it has the helpers, but not its relay; bench/door has what is not a case.
$(B)/door/%: $(B)/tests/door/%.o $(call parts,$(DOOR_SRC)) $(B)/tests/e2e/suite.o $(B)/libpostern.a
	$(link)

# Nothing of the relay's own, which it judges; but for the spool alone.
$(B)/crash/spooler: $(B)/libpostern.a
$(B)/crash/%: $(B)/tests/crash/%.o $(call parts,$(CRASH_SRC))
	$(link)

$(B)/bench/door: $(call parts,$(filter-out tests/door/case_%,$(DOOR_SRC))) $(B)/tests/e2e/suite.o

# The schedules of load are drawn by chance.
$(B)/bench/%: LIBS_OWN += -lm

$(B)/bench/%: $(B)/bench/%.o $(call parts,$(BENCH_SRC)) $(B)/libpostern.a
	$(link)

# In VARIANT=fuzz libFuzzer drives a target, elsewhere replay.c feeds it the committed corpus.
ifeq ($(VARIANT),fuzz)
CC := clang
$(B)/fuzz/%: LIBS_OWN := -fsanitize=fuzzer
$(B)/fuzz/%: $(B)/tests/fuzz/%.o $(B)/libpostern.a
	$(link)
else
$(B)/fuzz/%: $(B)/tests/fuzz/%.o $(B)/tests/fuzz/replay.o $(B)/libpostern.a
	$(link)
endif

.PHONY: tools unit-bins e2e-bins door-bins crash-bins bench-bins fuzz-bins test-bins
tools: $(TOOL_BIN) ## build the test servers and clients
unit-bins: $(UNIT_BIN)
e2e-bins: $(E2E_BIN)
door-bins: $(DOOR_BIN)
crash-bins: $(CRASH_BIN)
bench-bins: $(BENCH_BIN)
fuzz-bins: $(FUZZ_BIN)
test-bins: all bench-bins $(UNIT_BIN) $(TOOL_BIN) $(FUZZ_BIN)
tools unit-bins e2e-bins door-bins crash-bins bench-bins fuzz-bins test-bins:
	@: # so that make need not say that there was nothing to do

.PRECIOUS: $(B)/%.o

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# ---- what must be installed: Debian 12 or 13

DEPS_BUILD := build-essential pkg-config liburing-dev libssl-dev libbpf-dev libconfuse-dev \
	libidn2-dev libunbound-dev libjansson-dev libcap-ng-dev libisal-dev clang bpftool
DEPS_TEST := libcmocka-dev openssl swaks libnet-ssleay-perl curl python3 python3-pytest mandoc \
	shellcheck qemu-system-x86 busybox-static cpio kmod zstd xz-utils tcpdump iproute2 strace \
	valgrind procps util-linux perl-base dnsmasq-base haproxy python3-aiosmtpd e2fsprogs \
	python3-matplotlib \
	$(if $(filter x86_64,$(shell uname -m)),user-mode-linux)
DEPS_BENCH := openssl python3 python3-matplotlib linux-perf procps util-linux iproute2 curl xz-utils \
	zstd git
DEPS_LINT := clang clang-tidy clang-format libclang-rt-dev cppcheck shellcheck mandoc

SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

# Installs those of the named packages that are missing; silent and quick when none is.
define apt-install
@missing=$$(dpkg-query -W -f '$${db:Status-Status} $${Package}\n' $(1) 2>/dev/null | \
	awk 'BEGIN { n = split("$(1)", want, " ") } $$1 == "installed" { has[$$2] = 1 } \
		END { for (i = 1; i <= n; i++) if (!has[want[i]]) print want[i] }'); \
[ -z "$$missing" ] && exit 0; \
echo "  APT  " $$missing; \
$(SUDO) apt-get -qq -o DPkg::Lock::Timeout=300 update && \
$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
	-o DPkg::Lock::Timeout=300 install $$missing </dev/null >/dev/null
endef

.PHONY: deps deps-build deps-test deps-lint
deps: deps-test ## install what building and testing need (apt; as root or with sudo)
deps-build: ## install what building needs
	$(call apt-install,$(DEPS_BUILD))
deps-test: deps-build ## install what the tests need, too
	$(call apt-install,$(DEPS_TEST))
.PHONY: deps-bench
deps-bench: deps-build ## install what the benchmark needs
	$(call apt-install,$(DEPS_BENCH))
deps-lint: deps-build ## install what lint, format and fuzz need
	$(call apt-install,$(DEPS_LINT))

# ---- see it work, test it

# A make of its own, so that packages are there before anything is compiled; on all cores, unless
# this make was told otherwise.
BUILD = $(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))

.PHONY: demo test unit test-qemu test-crash test-power asan tsan valgrind
demo: deps-test ## two organisations, mutual TLS, real mail both ways; ends by itself
	$(Q)$(BUILD) all tools
	$(Q)tests/demo.sh

test: deps-test ## build and run every test; the last line counts them
	$(Q)$(BUILD) test-bins
	$(Q)$(BUILD) VARIANT=release e2e-bins door-bins crash-bins
	$(Q)VARIANT=$(VARIANT) tests/run.sh

unit: deps-test ## the unit tests only
	$(Q)$(BUILD) unit-bins
	$(Q)VARIANT=$(VARIANT) tests/run.sh unit

test-qemu: deps-test ## kernel TLS on Debian 13's own kernel, in QEMU
	$(Q)$(BUILD) test-bins
	$(Q)$(BUILD) VARIANT=release e2e-bins door-bins crash-bins
	$(Q)VARIANT=$(VARIANT) tests/run.sh qemu

test-crash: deps-test ## kill the relay 1 000 times under load, and count its mail
	$(Q)$(BUILD) all
	$(Q)$(BUILD) VARIANT=release crash-bins
	$(Q)build/release/crash/crash --self-test
	$(Q)build/release/crash/crash --postern $(CURDIR)/$(B)/postern --rounds 1000

POWER_ROUNDS ?= 1000
test-power: deps-test ## cut the power of a machine POWER_ROUNDS=1000 times, and count its mail
	$(Q)$(BUILD) all crash-bins
	$(Q)tests/crash/power.sh --rounds $(POWER_ROUNDS)

asan tsan: ## the tests under AddressSanitizer and UBSan, or ThreadSanitizer
	$(Q)$(BUILD) VARIANT=$@ test

# Built without _FORTIFY_SOURCE, whose memmove valgrind takes for a memcpy.
valgrind: deps-test ## the unit tests, and 10 000 sessions, under valgrind
	$(Q)$(BUILD) VARIANT=$@ all unit-bins fuzz-bins bench-bins
	$(Q)VARIANT=$@ WRAP="valgrind -q --leak-check=full --error-exitcode=1" tests/run.sh unit
	$(Q)VARIANT=$@ tests/valgrind.sh 10000

.PHONY: fuzz bench bench-idle bench-queue bench-door bench-commit bench-icount \
	bench-parser bench-handshake bench-floor
fuzz: deps-lint ## libFuzzer on every parser, FUZZ_SECONDS=30 each
	$(Q)$(BUILD) VARIANT=fuzz fuzz-bins
	$(Q)FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz/run.sh

# The peers are fetched before the clock of the runs starts; one that cannot be had is reported. The
# page is made of a benchmark with a void run, too, which it shows.
define bench
$(Q)$(BUILD) all bench-bins
$(Q)for what in '' bench; do tests/peers/setup.sh $$what || true; done
$(Q)status=0; bench/run.py $(1) --out build/bench/results.json || status=$$?; \
[ $$status -le 1 ] || exit $$status; \
bench/report build/bench/results.json --html build/bench/results.html \
	--markdown build/bench/results.md || status=1; exit $$status
endef

.PHONY: bench-full
bench: deps-bench ## Postern and its peers against each other, to build/bench/results.html (10 minutes)
	$(call bench,$(BENCH_OPTIONS))
bench-full: deps-test deps-bench ## the same longer, and instructions of kernel TLS (an hour)
	$(call bench,--full $(BENCH_OPTIONS))

bench-idle: deps-test ## memory of 10 000 idle sessions
	$(Q)$(BUILD) all tools bench-bins
	$(Q)bench/idle.sh

bench-queue: deps-test ## a million messages for a next hop that is away
	$(Q)$(BUILD) all bench-bins
	$(Q)bench/queue.sh

bench-door: deps-test ## tries, refusals and changes at the door (root)
	$(Q)$(BUILD) all bench-bins
	$(Q)bench/door.sh

bench-commit: deps-test ## messages on stable storage, by the spool, by Postfix and as is usual
	$(Q)$(BUILD) all bench-bins
	$(Q)bench/commit.sh

bench-icount: deps-test ## kernel against userspace records, in instructions (QEMU)
	$(Q)$(BUILD) all bench-bins
	$(Q)bench/icount.sh

bench-parser: deps-test ## what reading a session's bytes costs
	$(Q)$(BUILD) bench-bins
	$(Q)$(B)/bench/parser

bench-handshake: deps-test ## what a mutual handshake costs, and on what it is spent (valgrind)
	$(Q)$(BUILD) bench-bins
	$(Q)bench/handshake.sh --profile

bench-floor: deps-test ## the least that any relay here must spend on a message
	$(Q)$(BUILD) bench-bins
	$(Q)mkdir -p build/bench
	$(Q)$(B)/bench/floor --folder build/bench

# ---- lint

CLANG_TIDY ?= $(firstword $(shell command -v clang-tidy-14 clang-tidy) clang-tidy)
CLANG_FORMAT ?= $(firstword $(shell command -v clang-format-14 clang-format) clang-format)
C_FILES := $(sort $(wildcard relay/*.c relay/*/*.c policy/*.c bpf/loader*.c bench/*.c bench/*/*.c tests/*/*.c))
H_FILES := $(sort $(wildcard relay/*.h relay/*/*.h policy/*.h bpf/*.h bench/*.h bench/*/*.h tests/*/*.h))

.PHONY: lint tidy cppcheck format format-check
lint: deps-lint ## clang-tidy, cppcheck, and the project's own rules
	$(Q)status=0; \
	$(BUILD) -k all tidy cppcheck || status=1; \
	VARIANT=$(VARIANT) tests/run.sh lint || status=1; \
	exit $$status

# What clang-tidy says on standard error are counts of what it does not show.
tidy: $(SKELETON)
	@echo "  TIDY"
	$(Q)printf '%s\n' $(C_FILES) | xargs -P "$$(nproc)" -I FILE $(CLANG_TIDY) --quiet \
		--header-filter='(relay|policy|bpf|bench|tests)/' FILE -- \
		-std=gnu17 $(DEFINES) 2>/dev/null

cppcheck:
	@echo "  CPPCHECK"
	$(Q)cppcheck --quiet --std=c11 --language=c --enable=warning,performance,portability \
		--inline-suppr --suppressions-list=tests/lint/cppcheck.txt --error-exitcode=1 \
		-j "$$(nproc)" $(filter-out -isystem $(B)/bpf,$(DEFINES)) $(C_FILES)

format: ## clang-format over all C files
	$(Q)$(CLANG_FORMAT) -i $(C_FILES) $(H_FILES)

format-check: ## does clang-format agree?
	$(Q)$(CLANG_FORMAT) --dry-run --Werror $(C_FILES) $(H_FILES)

# ---- install

SBINDIR = $(PREFIX)/sbin
BINDIR = $(PREFIX)/bin
MANDIR = $(PREFIX)/share/man
EXAMPLEDIR = $(PREFIX)/share/doc/postern/examples
MODULESDIR = $(PREFIX)/lib/modules-load.d
UNITDIR = $(PREFIX)/lib/systemd/system
EXAMPLES := $(wildcard policy/examples/*.conf)
BENCH_TOOLS := postern-load postern-sink
BENCH_PAGES := $(wildcard $(BENCH_TOOLS:%=bench/%.1))

.PHONY: install uninstall
install: all $(BENCH_TOOLS:%=$(B)/bench/%) ## into PREFIX=/usr/local, with DESTDIR in front of all paths
	install -d $(addprefix $(DESTDIR),$(BINDIR) $(SBINDIR) $(MANDIR)/man1 $(MANDIR)/man5 \
		$(MANDIR)/man8 $(EXAMPLEDIR) $(MODULESDIR) $(UNITDIR))
	install -m 755 $(B)/postern $(DESTDIR)$(SBINDIR)/postern
	install -m 755 $(B)/posternctl $(DESTDIR)$(SBINDIR)/posternctl
	install -m 755 $(BENCH_TOOLS:%=$(B)/bench/%) $(DESTDIR)$(BINDIR)
	install -m 644 $(BENCH_PAGES) $(DESTDIR)$(MANDIR)/man1
	install -m 644 relay/postern.8 $(DESTDIR)$(MANDIR)/man8/postern.8
	install -m 644 relay/ctl/posternctl.8 $(DESTDIR)$(MANDIR)/man8/posternctl.8
	install -m 644 policy/postern.conf.5 $(DESTDIR)$(MANDIR)/man5/postern.conf.5
	install -m 644 $(EXAMPLES) $(DESTDIR)$(EXAMPLEDIR)
	echo tls >$(DESTDIR)$(MODULESDIR)/postern.conf
	sed -e 's|@SBINDIR@|$(SBINDIR)|g' -e 's|@SYSCONFDIR@|$(SYSCONFDIR)|g' \
		relay/postern.service >$(DESTDIR)$(UNITDIR)/postern.service
	chmod 644 $(DESTDIR)$(MODULESDIR)/postern.conf $(DESTDIR)$(UNITDIR)/postern.service

uninstall: ## remove what install put there, and nothing else
	rm -f $(addprefix $(DESTDIR),$(SBINDIR)/postern $(SBINDIR)/posternctl \
		$(BENCH_TOOLS:%=$(BINDIR)/%) $(BENCH_PAGES:bench/%=$(MANDIR)/man1/%) \
		$(MANDIR)/man8/postern.8 $(MANDIR)/man8/posternctl.8 \
		$(MANDIR)/man5/postern.conf.5 $(MODULESDIR)/postern.conf $(UNITDIR)/postern.service \
		$(EXAMPLES:policy/examples/%=$(EXAMPLEDIR)/%))
	rmdir $(DESTDIR)$(EXAMPLEDIR) $(DESTDIR)$(EXAMPLEDIR)/.. 2>/dev/null || true

# ---- house-keeping

.PHONY: clean distclean help
clean: ## remove what was compiled, and the logs of tests; keep what was downloaded
	$(Q)rm -rf $(filter-out build/kernels build/peers,$(wildcard build/*))

distclean: ## remove build/ whole
	$(Q)rm -rf build

help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z -]*:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Variables: V=1 shows full commands; VARIANT=release|asan|tsan; DESTDIR, PREFIX, SYSCONFDIR;'
	@echo 'CC, CFLAGS (-O2 -g), CPPFLAGS, LDFLAGS.'
