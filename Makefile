# Works with BSD make and GNU make.  Everything runs from a virtual
# environment in .venv, which bootstrap.sh makes and keeps current.

PY=	.venv/bin/python
CC?=	cc
CWARN=	-std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -O2 -fsyntax-only \
	-Ixbbd_bsd/native

all: build

help:
	@echo "make demo    show a disk going through the ring, without Xen (about a minute)"
	@echo "make demo-net    two guests with network cards on a bridge (Linux, as root)"
	@echo "make test    the tests (about 11 minutes with two processors)"
	@echo "make test-more   the same in more circumstances (5 minutes)"
	@echo "make test-all    both"
	@echo "make test-hostile-all    ten million slots of nonsense for a card (5 minutes)"
	@echo "make mutants    a sample of one-line changes: do the tests notice (20 minutes)"
	@echo "make mutants-all    every such change of a dozen files (hours)"
	@echo "make lint    ruff, mypy, C with all warnings for FreeBSD too, portable scripts"
	@echo "make bench-net   a network card against the bare relay of two taps"
	@echo "make bench   what ring and backend cost, against preadv(2)"
	@echo "make bench-null    a ring on a disk that takes no time, in instructions (2 minutes)"
	@echo "make bench-nbd   a ring before a server of NBD, against libnbd alone"
	@echo "make bench-ceph  a ring before a cluster of Ceph, against librbd alone"
	@echo "make test-ceph    disks in a real cluster of Ceph, made for that (2 minutes)"
	@echo "make test-xen    real guests on a real Xen, in QEMU (15 to 30 minutes)"
	@echo "make test-xen-all    the same in more circumstances (30 to 60 minutes)"
	@echo "make test-freebsd-dom0   the same in this dom0, a FreeBSD's (HACKING.md)"
	@echo "make bench-xen   xbbd, blkback and qdisk there, in real time"
	@echo "make bench-xen-virtual   the same in virtual time: the one to judge by"
	@echo "make bench-net-xen-virtual   xnb and xen-netback there, likewise"
	@echo "make clean   remove everything that make made"

build:
	@sh bootstrap.sh run

demo: build
	@$(PY) -m xbbd_bsd.sim demo

# Name spaces of its own; says what it needs if it cannot.
demo-net:
	@sh bootstrap.sh net
	@$(PY) -m xbbd_bsd.sim demo-net

# Most tests of whole machines are starts of Python: those it may cost only once what
# compiling its modules costs, whatever the environment says.
PYTESTS=	PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n 5 --dist loadfile --no-loadscope-reorder
test:
	@sh bootstrap.sh test
	$(PYTESTS) -m "not more"

# What that leaves out, since others show it too.
test-more:
	@sh bootstrap.sh test
	$(PYTESTS) -m more

test-all: test test-more

# A monitor and an OSD of Debian's, on this computer's own address, for two minutes.
test-ceph:
	@sh bootstrap.sh ceph
	XBBD_TEST_CEPH=yes $(PY) -m pytest tests/ceph

# Make test does a small part of it.  XBBD_TEST_SEED says which slots.
test-hostile-all:
	@sh bootstrap.sh test
	XBBD_TEST_SCALE=250 $(PY) -m pytest tests/c/test_native.py -k net_noise

# SEED says which; MUTANTS="--file ring.c --line 60" and the like, which of them.
SEED?=	1
mutants:
	@sh bootstrap.sh test
	$(PY) -m tests.mutants --sample 12 --seed $(SEED) $(MUTANTS)

mutants-all:
	@sh bootstrap.sh test
	$(PY) -m tests.mutants $(MUTANTS)

lint:
	@sh bootstrap.sh lint
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	for f in `$(PY) -m xbbd_bsd.native.build`; do \
	    $(CC) $(CWARN) $$f || exit 1; done
	$(PY) -m tests.freebsd.cross
	sh .ci/portable

bench: build
	@$(PY) -m xbbd_bsd.sim bench

bench-net:
	@sh bootstrap.sh net
	@$(PY) -m xbbd_bsd.sim bench-net

# Instructions are counted where valgrind is.
bench-null: build
	@$(PY) -m tests.bench

bench-nbd: build
	@$(PY) -m tests.bench.nbd

# The lab builds its images the first time; see tests/lab/README.md.
test-xen: build
	@$(PY) -m tests.lab test -- -m "not more"

test-xen-all: build
	@$(PY) -m tests.lab test --timeout 5400

# As root, with guests' images in $XBBD_TEST_GUEST; HACKING.md has the rest.
test-freebsd-dom0:
	@sh bootstrap.sh test
	@sh tests/lab/check-freebsd
	$(PY) -m pytest tests/real

bench-ceph:
	@sh bootstrap.sh ceph
	@XBBD_TEST_CEPH=yes $(PY) -m tests.bench.rbd

bench-xen: build
	@$(PY) -m tests.lab bench

bench-xen-virtual: build
	@$(PY) -m tests.lab bench --icount 2 --timeout 7200 --record

bench-net-xen-virtual: build
	@$(PY) -m tests.lab bench-net --icount 2 --timeout 3600 --record

clean:
	rm -rf .venv build dist xbbd.egg-info .mypy_cache .ruff_cache \
	    .pytest_cache .hypothesis
	rm -f xbbd_bsd/native/_xbb.c xbbd_bsd/native/_xbb*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: all help build demo demo-net test test-more test-all test-hostile-all mutants mutants-all lint bench \
	bench-ceph bench-nbd bench-net bench-null test-ceph test-xen test-xen-all test-freebsd-dom0 bench-xen \
	bench-xen-virtual bench-net-xen-virtual clean
