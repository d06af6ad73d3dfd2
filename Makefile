# The usual tasks. Each does its own set-up, so that a fresh Debian machine with Rust, gcc, Python and git is enough.
#
#   make demo     build, then show an image going from a registry to a running container
#   make test     build, then run every test
#   make test-vm  run those that depend on cgroups and systemd in an emulated machine with nothing but cgroup v2
#   make kubelet  build, then show a static pod of a real kubelet (KUBELET=/path/to/kubelet)
#   make bench    measure beside Debian's containerd and runc
#   make install  put the programs where containerd's own packages put them (DESTDIR, PREFIX, CNIBIN)

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
CNIBIN ?= /opt/cni/bin
SECONDS_EACH ?= 60
CYCLES ?= 200
RACES ?= 10000
KUBELET ?=

PROGRAMS := containerd ctr containerd-shim-runc-v2 containerd-pause runc berth-cni
FUZZ_TARGETS := tar manifest filter hosts
DIST := target/dist
HOST := $(shell rustc -vV | sed -n 's/^host: //p')

.PHONY: all setup programs pause demo kubelet test test-vm bench soak fuzz deny release docs install clean help

all: programs

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

setup:
	./dev/setup.sh

# Debug builds, as the tests use them. A pod's pause runs where no shared library is, so it is never linked with any.
programs: pause
	$(CARGO) build --workspace --bins

pause:
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --profile small --target $(HOST) --bin containerd-pause
	install -D -m 755 target/$(HOST)/small/containerd-pause target/libexec/containerd-pause

demo: setup programs
	$(CARGO) xtask demo

# Without a kubelet it says how to get one, and builds no more than that takes.
kubelet: $(if $(KUBELET),setup programs)
	$(CARGO) xtask kubelet $(if $(KUBELET),--kubelet '$(KUBELET)')

test: setup programs
	./dev/test.sh

# Needs neither KVM nor a network in the guest; QEMU and the guest are made on first use, below target/vm.
test-vm: setup
	$(CARGO) xtask vm

# What is installed and measured. The shim, pause and runc are made small, since the first two stay resident once per
# pod; with ctr they are linked statically: each start would else look for shared libraries, along LD_LIBRARY_PATH at
# that. The daemon is not: it resolves host names, which takes the machine's own libraries. The daemon and ctr report the
# commit as their revision; debug builds do not, since each commit would build them again.
release: export BERTH_REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)
release:
	$(CARGO) build --release --bin containerd
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --profile small --target $(HOST) \
	    --bin containerd-shim-runc-v2 --bin containerd-pause --bin runc --bin ctr \
	    --bin berth-cni
	mkdir -p $(DIST)/bin
	install -m 755 target/release/containerd $(DIST)/bin/
	cd target/$(HOST)/small && install -m 755 ctr containerd-shim-runc-v2 containerd-pause runc berth-cni \
	    $(CURDIR)/$(DIST)/bin/

# The client is built as what it measures: its own time is on both sides of every figure.
bench: setup release
	$(CARGO) run --release --package xtask -- bench

soak: setup programs
	$(CARGO) xtask soak --cycles $(CYCLES)
	BERTH_RACES=$(RACES) $(CARGO) nextest run --profile soak -p runtime -E 'test(racing::)'

fuzz:
	for target in $(FUZZ_TARGETS); do \
	    $(CARGO) run --release --package fuzz -- $$target --seconds $(SECONDS_EACH) || exit 1; \
	done

# Licences, advisories and sources of what we depend on; apart from `make test` because it wants cargo-deny.
deny:
	$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check

# docs/ctr.md, from the program's own definition.
docs:
	$(CARGO) run --package pages -- --docs

install: release
	$(CARGO) run --release --package pages -- $(DIST)/share
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 755 $(DIST)/bin/containerd $(DIST)/bin/ctr $(DIST)/bin/containerd-shim-runc-v2 \
	    $(DIST)/bin/containerd-pause $(DESTDIR)$(PREFIX)/bin/
	install -m 755 $(DIST)/bin/runc $(DESTDIR)$(PREFIX)/sbin/
	$(DIST)/bin/berth-cni install $(DESTDIR)$(CNIBIN)
	sed 's|@BIN@|$(PREFIX)/bin|' contrib/containerd.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/containerd.service
	chmod 644 $(DESTDIR)$(PREFIX)/lib/systemd/system/containerd.service
	install -d $(DESTDIR)$(PREFIX)/share
	cp -R $(DIST)/share/. $(DESTDIR)$(PREFIX)/share/

clean:
	$(CARGO) clean
