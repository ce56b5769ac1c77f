# Shardmill's build. `make help` lists the targets; every package is Debian's and comes by `make deps`.
BUILD  ?= build
PREFIX ?= /usr/local
ifeq ($(origin CC),default)
CC      = gcc
endif
PYTHON ?= /usr/bin/python3
OPT    ?= -O2 -g
VERSION = 0.1.0

PACKAGES = vips >= 8.14 libjpeg >= 2.1 libpng >= 1.6 libzmq >= 4.3 libprotobuf-c >= 1.4 libfyaml >= 0.7 \
           jansson >= 2.13 sqlite3 >= 3.37 libxxhash >= 0.8 libcrypto >= 3 libseccomp >= 2.5 zlib >= 1.2
# the broker is linked alone in a test: it must not need more than this
BROKER_PACKAGES = libzmq >= 4.3 libprotobuf-c >= 1.4 sqlite3 >= 3.37 libxxhash >= 0.8 libcrypto >= 3

DEB_BUILD = gcc make pkg-config libc6-dev libvips-dev libjpeg-dev libpng-dev libzmq3-dev libprotobuf-c-dev \
            protobuf-c-compiler protobuf-compiler libfyaml-dev libjansson-dev libsqlite3-dev libxxhash-dev \
            libssl-dev libseccomp-dev libopenblas-dev zlib1g-dev
DEB_DEMO  = tuxpaint-stamps-default python3-sklearn
DEB_TEST  = python3 python3-numpy python3-pil python3-pytest python3-torch python3-torchvision python3-sklearn python3-imblearn \
            python3-pip python3-setuptools python3-wheel python3-venv libcmocka-dev parallel clang

WARN   = -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Werror
CPPFLAGS += -I. -I$(BUILD)/gen -D_GNU_SOURCE -DSM_VERSION='"$(VERSION)"'
PKG_CFLAGS := $(shell pkg-config --cflags '$(PACKAGES)' 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs '$(PACKAGES)' 2>/dev/null)
BROKER_LIBS := $(shell pkg-config --libs '$(BROKER_PACKAGES)' 2>/dev/null)
CFLAGS_ALL = -std=c17 $(OPT) $(WARN) -fno-strict-aliasing -ffp-contract=off -pthread $(SAN) $(PKG_CFLAGS) $(CFLAGS)
LDLIBS_ALL = $(PKG_LIBS) -lm -pthread

LIB_SRC    = $(wildcard lib/*.c)
BROKER_SRC = $(wildcard broker/*.c)
LANG_SRC   = $(wildcard pipelines/lang/*.c)
OPS_SRC    = $(sort $(wildcard workers/ops/*.c))
METHOD_SRC = $(sort $(wildcard workers/rebalance/*.c))
WORKER_SRC = $(wildcard workers/*.c workers/kernels/*.c workers/sources/*.c workers/sinks/*.c \
             workers/table/*.c) $(OPS_SRC) $(METHOD_SRC)
CLI_SRC    = $(wildcard cli/*.c)
CLIENT_SRC = $(filter-out client/c/example.c,$(wildcard client/c/*.c))
GEN_SRC    = $(BUILD)/gen/messages.pb-c.c $(BUILD)/gen/ops_list.c $(BUILD)/gen/methods_list.c

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out $(BUILD)/gen/%,$(1))) \
      $(patsubst $(BUILD)/gen/%.c,$(BUILD)/obj/gen/%.o,$(filter $(BUILD)/gen/%,$(1)))
PB_OBJ     = $(BUILD)/obj/gen/messages.pb-c.o
CORE_OBJ   = $(call obj,$(LIB_SRC) $(BROKER_SRC) $(LANG_SRC) $(WORKER_SRC) $(CLIENT_SRC) $(GEN_SRC))
CMD_SRC    = $(sort $(wildcard cli/cmd_*.c))
BIN_OBJ    = $(CORE_OBJ) $(call obj,$(CLI_SRC) $(BUILD)/gen/commands.c)

UNIT_SRC   = $(wildcard tests/unit/*.c)
TOOL_SRC   = $(wildcard tests/tools/*.c)
TOOL_BIN   = $(patsubst tests/tools/%.c,$(BUILD)/tools/%,$(TOOL_SRC))
UNIT_BIN   = $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNIT_SRC))

.PHONY: bench-broker bench-peers bench-tables all chaos csv-fuzz client help deps deps-demo deps-test demo test clean install asan asan-build tsan format bench bench-stream sim tests docs lint objects packages-there python wheel
all: $(BUILD)/shardmill client

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 18

# Says which package is missing or too old, instead of a compiler's errors.
packages-there:
	@pkg-config --print-errors --exists '$(PACKAGES)' || { echo "(hint: make deps)" >&2; exit 1; }

$(BIN_OBJ): | packages-there
$(BUILD)/shardmill: $(BIN_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -o $@ $(BIN_OBJ) $(LDLIBS_ALL)

$(BUILD)/obj/gen/%.o: $(BUILD)/gen/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS_ALL) -Wno-missing-prototypes -MMD -MP -c -o $@ $<

$(BUILD)/obj/%.o: %.c | $(BUILD)/gen/messages.pb-c.h
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

$(BUILD)/gen/messages.pb-c.c $(BUILD)/gen/messages.pb-c.h &: proto/messages.proto
	@mkdir -p $(@D)
	protoc-c --proto_path=proto --c_out=$(@D) $<

# The list of ops is made from the file names: workers/ops/flip.c defines sm_op_flip.
$(BUILD)/gen/ops_list.c: $(OPS_SRC) workers/ops
	@mkdir -p $(@D)
	@{ echo '/* made from the names of workers/ops/ */'; echo '#include "workers/ops/op.h"'; \
	   for f in $(notdir $(basename $(OPS_SRC))); do echo "extern const struct sm_op sm_op_$$f;"; done; \
	   echo 'const struct sm_op *const sm_ops[] = {'; \
	   for f in $(notdir $(basename $(OPS_SRC))); do echo "    &sm_op_$$f,"; done; \
	   echo '};'; echo 'const size_t sm_ops_count = sizeof sm_ops / sizeof *sm_ops;'; } > $@.new
	@cmp -s $@.new $@ && touch $@ || mv $@.new $@; rm -f $@.new

# The methods of `rebalance:`: workers/rebalance/smote.c defines sm_method_smote.
$(BUILD)/gen/methods_list.c: $(METHOD_SRC) workers/rebalance
	@mkdir -p $(@D)
	@{ echo '/* made from the names of workers/rebalance/ */'; echo '#include "workers/rebalance/method.h"'; \
	   for f in $(notdir $(basename $(METHOD_SRC))); do echo "extern const struct sm_method sm_method_$$f;"; done; \
	   echo 'const struct sm_method *const sm_methods[] = {'; \
	   for f in $(notdir $(basename $(METHOD_SRC))); do echo "    &sm_method_$$f,"; done; \
	   echo '};'; echo 'const size_t sm_methods_count = sizeof sm_methods / sizeof *sm_methods;'; } > $@.new
	@cmp -s $@.new $@ && touch $@ || mv $@.new $@; rm -f $@.new

# And the list of commands: cli/cmd_expand.c defines sm_cmd_expand.
$(BUILD)/gen/commands.c: $(CMD_SRC) cli
	@mkdir -p $(@D)
	@{ echo '/* made from the names of cli/cmd_*.c */'; echo '#include "cli/cli.h"'; \
	   for f in $(patsubst cmd_%,%,$(notdir $(basename $(CMD_SRC)))); do echo "extern const struct sm_command sm_cmd_$$f;"; done; \
	   echo 'const struct sm_command *const sm_commands[] = {'; \
	   for f in $(patsubst cmd_%,%,$(notdir $(basename $(CMD_SRC)))); do echo "    &sm_cmd_$$f,"; done; \
	   echo '};'; echo 'const size_t sm_commands_count = sizeof sm_commands / sizeof *sm_commands;'; } > $@.new
	@cmp -s $@.new $@ && touch $@ || mv $@.new $@; rm -f $@.new

$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(CORE_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -o $@ $^ $(LDLIBS_ALL) -lcmocka

$(BUILD)/tests/hand_over: $(BUILD)/obj/tests/unit/hand_over.o $(call obj,cli/hand_over.c cli/client.c) $(CORE_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -o $@ $^ $(LDLIBS_ALL) -lcmocka

# The broker never touches a sample: this test links it with nothing that could (no libvips, libfyaml, OpenBLAS).
$(BUILD)/tests/loop: $(BUILD)/obj/tests/unit/loop.o $(call obj,$(LIB_SRC) $(BROKER_SRC)) $(PB_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -o $@ $^ $(BROKER_LIBS) -lm -pthread -lcmocka

# ---- the client library: what a training loop links. It needs no libvips, YAML, JSON or libcrypto, and shows the
# functions of client/c/shardmill.h alone, in the static library too. ----
CLIENT_PACKAGES = libzmq >= 4.3 libprotobuf-c >= 1.4 libxxhash >= 0.8
CLIENT_LIB  = $(filter-out lib/sha.c lib/rebalance.c lib/normal.c,$(LIB_SRC))
CLIENT_OBJ  = $(patsubst %.c,$(BUILD)/pic/%.o,$(CLIENT_SRC) $(CLIENT_LIB)) $(BUILD)/pic/gen/messages.pb-c.o
CLIENT_LIBS := $(shell pkg-config --libs '$(CLIENT_PACKAGES)' 2>/dev/null) -pthread
SOVERSION   = 0
SO          = libshardmill.so.$(SOVERSION)
PIC         = -fPIC -fvisibility=hidden -ffunction-sections -fdata-sections
client: $(BUILD)/libshardmill.so $(BUILD)/libshardmill.a $(BUILD)/shardmill.pc ## the C library for training loops

$(BUILD)/pic/gen/%.o: $(BUILD)/gen/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS_ALL) $(PIC) -Wno-missing-prototypes -MMD -MP -c -o $@ $<
$(BUILD)/pic/%.o: %.c | $(BUILD)/gen/messages.pb-c.h
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS_ALL) $(PIC) -MMD -MP -c -o $@ $<
$(BUILD)/$(SO): $(CLIENT_OBJ)
	$(CC) $(CFLAGS_ALL) -shared -Wl,-soname,$(SO) $(if $(SAN),,-Wl,-z,defs) -Wl,--as-needed -Wl,--gc-sections -o $@ $^ $(CLIENT_LIBS)
$(BUILD)/libshardmill.so: $(BUILD)/$(SO)
	ln -sf $(SO) $@
$(BUILD)/libshardmill.a: $(CLIENT_OBJ)
	$(LD) -r -o $(BUILD)/libshardmill.o $^
	objcopy --localize-hidden $(BUILD)/libshardmill.o
	@rm -f $@
	$(AR) rcs $@ $(BUILD)/libshardmill.o
# no Requires.private: Debian 12's libzmq.pc names a libprotokit.a that no package has
$(BUILD)/shardmill.pc: Makefile
	@mkdir -p $(@D)
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$${prefix}/lib' 'includedir=$${prefix}/include' '' 'Name: shardmill' \
	  'Description: batches of augmented images for training loops' 'Version: $(VERSION)' \
	  'Libs: -L$${libdir} -lshardmill' 'Libs.private: -lzmq -lprotobuf-c -lxxhash -pthread' \
	  'Cflags: -I$${includedir}' >$@
$(BUILD)/client_example: client/c/example.c $(BUILD)/libshardmill.so
	$(CC) -std=c17 $(OPT) $(WARN) $(SAN) -Iclient/c -o $@ $< -L$(BUILD) -lshardmill -Wl,-rpath,'$$ORIGIN'

# The client library's tests see its insides, and link no more than it may need.
CLIENT_TESTS = $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/client_*.c))
$(CLIENT_TESTS): $(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(call obj,$(CLIENT_SRC) $(CLIENT_LIB)) $(PB_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -o $@ $^ $(CLIENT_LIBS) -lcmocka

# The simulator drives the same core, compiled once more so that bugs can be planted in it.
SIM_CORE = $(addprefix broker/,core.c actions.c records.c plan.c leases.c workers.c results.c jobs.c job_files.c status.c \
           sessions.c stream.c orphans.c runs.c waits.c)
SIM_LIB  = $(addprefix lib/,err.c arena.c plan.c permutation.c rng.c steps.c)
SIM_OBJ  = $(patsubst %.c,$(BUILD)/sim/%.o,$(SIM_CORE) $(wildcard tests/sim/*.c)) $(call obj,$(SIM_LIB)) $(PB_OBJ)
$(BUILD)/sim/%.o: %.c | $(BUILD)/gen/messages.pb-c.h
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -DSM_SIM $(CFLAGS_ALL) -MMD -MP -c -o $@ $<
$(BUILD)/sim/sim: $(SIM_OBJ)
	$(CC) $(CFLAGS_ALL) -o $@ $^ $(BROKER_LIBS) -pthread
N ?= 1000000
SEED ?= 1
sim: $(BUILD)/sim/sim ## N simulated kills (default 10^6), then each planted bug must be caught
	$(BUILD)/sim/sim --kills $(N) --seed $(SEED)

$(BUILD)/tools/%: $(BUILD)/obj/tests/tools/%.o $(CORE_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -o $@ $^ $(LDLIBS_ALL)

# The broker's core alone, with simulated workers and trainers: leases per second and flat memory.
$(BUILD)/bench/broker_leases: $(BUILD)/obj/tests/bench/broker_leases.o $(call obj,$(LIB_SRC) $(BROKER_SRC)) $(PB_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -o $@ $^ $(PKG_LIBS) -lm -pthread
bench-broker: $(BUILD)/bench/broker_leases ## leases per second of the broker alone, memory from 10^3 to 10^9 samples
	$(BUILD)/bench/broker_leases

tests: $(BUILD)/shardmill $(BUILD)/client_example client $(UNIT_BIN) $(TOOL_BIN)

# ---- packages ----
# Asks apt only when something is missing, and sudo only when not root.
define apt_install
@missing=; for p in $(1); do dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed \
  || missing="$$missing $$p"; done; \
if [ -n "$$missing" ]; then echo "installing:$$missing"; as=; [ "$$(id -u)" = 0 ] || as=sudo; \
  $$as apt-get update -qq && $$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
  --no-install-recommends $$missing >$(DEPS_LOG) 2>&1 || { tail -20 $(DEPS_LOG); exit 1; }; fi
endef
DEPS_LOG := $(shell mktemp -u)

deps:            ## install the Debian packages that the build needs
	$(call apt_install,$(DEB_BUILD))
deps-demo: deps
	$(if $(DATA),,$(call apt_install,$(DEB_DEMO)))
deps-test: deps
	$(call apt_install,$(DEB_DEMO) $(DEB_TEST))

# ---- the two commands of the README: each does all of it, from a bare machine on ----
demo: deps-demo  ## packages, build, and the main job on real pictures (DATA=folder: on yours)
	@$(MAKE) --no-print-directory -s -j2 all
	@BUILD=$(BUILD) DATA="$(DATA)" pipelines/demo.sh

test: deps-test  ## packages, build, and every suite in its short form
	@$(MAKE) --no-print-directory -s -j2 all tests
	@tests/run --build $(BUILD) lint unit sim asan parity e2e

# ---- longer runs ----
lint:            ## everything compiles without a warning under clang too
	@$(MAKE) --no-print-directory -s CC=clang BUILD=build-clang objects

asan-build:
	@$(MAKE) --no-print-directory -s BUILD=build-asan OPT="-O1 -g" SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined" all tests
asan: deps-test  ## unit tests and e2e under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory -s client # an ordinary one: a sanitized library does not load into Python
	@$(MAKE) --no-print-directory asan-build
	@tests/run --build build-asan unit e2e
tsan: deps-test  ## unit tests under ThreadSanitizer
	@$(MAKE) --no-print-directory -s BUILD=build-tsan OPT="-O1 -g" SAN="-fsanitize=thread" all tests
	@tests/run --build build-tsan unit

chaos: deps-test ## trainers, workers and broker killed for a long time (KILLS=2000); the ledgers must agree
	@$(MAKE) --no-print-directory -s -j2 all tests
	@SHARDMILL_STREAM_KILLS=$(or $(KILLS),2000) SHARDMILL_STREAM_SAMPLES=$(or $(SAMPLES),200000) \
	  SHARDMILL=$(abspath $(BUILD)/shardmill) $(PYTHON) -m pytest -q -s -p no:cacheprovider tests/e2e/test_stream_ledger.py
	@SHARDMILL_STALL_S=$(or $(STALL),600) SHARDMILL=$(abspath $(BUILD)/shardmill) $(PYTHON) -m pytest -q -p no:cacheprovider \
	  tests/e2e/test_stream_cli.py -k stalls

csv-fuzz: deps-test ## the CSV reader against Python's csv module on TABLES=100000 generated tables, SEED=1
	@$(MAKE) --no-print-directory -s -j2 $(BUILD)/tools/csv_rows
	@SHARDMILL_CSV_TABLES=$(or $(TABLES),100000) SHARDMILL_CSV_SEED=$(SEED) BUILD=$(abspath $(BUILD)) \
	  $(PYTHON) -m pytest -q -p no:cacheprovider tests/parity/test_csv.py

bench: deps-test ## ratios, measured side by side in one run (SHARDMILL_PHOTOS=folder of JPEG files)
	@$(MAKE) --no-print-directory -s -j2 all tests
	@tests/bench/engine_vs_torchvision.py --tool $(BUILD)/tools/engine_run $${SHARDMILL_PHOTOS:-../shared/data/photos}
	@BUILD=$(BUILD) tests/bench/bench_expand.py
	@BUILD=$(BUILD) tests/bench/bench_curve.py
bench-peers:     ## what bench-tables measures against, in an environment of its own; nothing else needs it
	@test -x $(BUILD)/peers/bin/python || $(PYTHON) -m venv $(BUILD)/peers
	@$(BUILD)/peers/bin/python -m pip install -q --disable-pip-version-check scikit-learn imbalanced-learn pandas polars
bench-tables: deps-test ## the same for tables, beside those peers: every tests/bench/bench_tables_*.py
	@$(MAKE) --no-print-directory -s -j2 all tests
	@$(MAKE) --no-print-directory -s bench-peers
	@failed=0; for b in tests/bench/bench_tables_*.py; do BUILD=$(BUILD) $$b || failed=1; done; exit $$failed
bench-stream: deps-test ## the same for trainers: every tests/bench/bench_stream_*.py
	@$(MAKE) --no-print-directory -s -j2 all tests
	@failed=0; for b in tests/bench/bench_stream_*.py; do BUILD=$(BUILD) $$b || failed=1; done; exit $$failed

objects: $(BIN_OBJ)

# ---- the Python package: pure Python around the C library and the program, so one wheel serves every CPython >= 3.9 ----
python: all      ## a look whether the Python package loads from the checkout (PYTHONPATH=client/python/src)
	@SHARDMILL_LIB=$(abspath $(BUILD))/libshardmill.so SHARDMILL=$(abspath $(BUILD))/shardmill PYTHONPATH=client/python/src \
	  $(PYTHON) -c 'import shardmill; print("shardmill", shardmill.version(), "in client/python/src")'
wheel: all       ## a wheel of the Python package into $(BUILD)/wheel
	@rm -rf client/python/build $(BUILD)/wheel
	@SHARDMILL_BUILD=$(abspath $(BUILD)) $(PYTHON) -m pip wheel -q --no-deps --no-build-isolation --no-cache-dir \
	  --disable-pip-version-check -w $(BUILD)/wheel ./client/python
	@rm -rf client/python/build client/python/src/shardmill.egg-info
	@ls $(BUILD)/wheel/*.whl

# ---- documents and installation; nothing of this is committed ----
SHARE = $(BUILD)/share
docs: $(BUILD)/shardmill  ## man page, completion, schema.json, ops.md into $(BUILD)/share
	@mkdir -p $(SHARE)
	$(BUILD)/shardmill docs man    >$(SHARE)/shardmill.1
	$(BUILD)/shardmill docs bash   >$(SHARE)/shardmill.bash
	$(BUILD)/shardmill docs schema >$(SHARE)/schema.json
	$(BUILD)/shardmill docs ops    >$(SHARE)/ops.md

DATADIR = $(DESTDIR)$(PREFIX)/share
install: docs client ## program, library, man page, completion, schema, recipes (DESTDIR, PREFIX)
	install -D -m 755 $(BUILD)/shardmill $(DESTDIR)$(PREFIX)/bin/shardmill
	install -D -m 644 client/c/shardmill.h $(DESTDIR)$(PREFIX)/include/shardmill.h
	install -D -m 755 $(BUILD)/$(SO) $(DESTDIR)$(PREFIX)/lib/$(SO)
	ln -sf $(SO) $(DESTDIR)$(PREFIX)/lib/libshardmill.so
	install -D -m 644 $(BUILD)/libshardmill.a $(DESTDIR)$(PREFIX)/lib/libshardmill.a
	install -D -m 644 $(BUILD)/shardmill.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig/shardmill.pc
	install -D -m 644 $(SHARE)/shardmill.1 $(DATADIR)/man/man1/shardmill.1
	install -D -m 644 $(SHARE)/shardmill.bash $(DATADIR)/bash-completion/completions/shardmill
	install -D -m 644 -t $(DATADIR)/shardmill $(SHARE)/schema.json
	install -D -m 644 -t $(DATADIR)/shardmill/pipelines pipelines/*.yaml
	install -D -m 644 -t $(DATADIR)/doc/shardmill $(SHARE)/ops.md docs/*.md LICENSE

format:          ## clang-format over the tree
	clang-format -i $$(git ls-files '*.c' '*.h')

clean:           ## remove what was built
	rm -rf build build-asan build-tsan build-clang $(BUILD)

-include $(shell find $(BUILD)/obj $(BUILD)/pic $(BUILD)/sim -name '*.d' 2>/dev/null)
