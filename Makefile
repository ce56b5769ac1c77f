# Shardmill's build. `make help` lists the targets; every package is Debian's and comes by `make deps`.
BUILD  ?= build
PREFIX ?= /usr/local
CC     ?= gcc
PYTHON ?= /usr/bin/python3
OPT    ?= -O2 -g
VERSION = 0.1.0

PACKAGES = vips >= 8.14 libjpeg >= 2.1 libzmq >= 4.3 libprotobuf-c >= 1.4 libfyaml >= 0.7 \
           jansson >= 2.13 sqlite3 >= 3.37 libxxhash >= 0.8 libcrypto >= 3 libseccomp >= 2.5
# the broker is linked alone in a test: it must not need more than this
BROKER_PACKAGES = libzmq >= 4.3 libprotobuf-c >= 1.4 sqlite3 >= 3.37 libxxhash >= 0.8 libcrypto >= 3

DEB_BUILD = gcc make pkg-config libc6-dev libvips-dev libjpeg62-turbo-dev libzmq3-dev libprotobuf-c-dev \
            protobuf-c-compiler protobuf-compiler libfyaml-dev libjansson-dev libsqlite3-dev libxxhash-dev \
            libssl-dev libseccomp-dev
DEB_DEMO  = tuxpaint-stamps-default
DEB_TEST  = python3 python3-numpy python3-pil python3-pytest python3-torch python3-torchvision \
            libcmocka-dev parallel clang libclang-rt-14-dev

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
WORKER_SRC = $(wildcard workers/*.c workers/kernels/*.c workers/sources/*.c workers/sinks/*.c) $(OPS_SRC)
CLI_SRC    = $(wildcard cli/*.c)
GEN_SRC    = $(BUILD)/gen/messages.pb-c.c $(BUILD)/gen/ops_list.c

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out $(BUILD)/gen/%,$(1))) \
      $(patsubst $(BUILD)/gen/%.c,$(BUILD)/obj/gen/%.o,$(filter $(BUILD)/gen/%,$(1)))
PB_OBJ     = $(BUILD)/obj/gen/messages.pb-c.o
CORE_OBJ   = $(call obj,$(LIB_SRC) $(BROKER_SRC) $(LANG_SRC) $(WORKER_SRC) $(GEN_SRC))
BIN_OBJ    = $(CORE_OBJ) $(call obj,$(CLI_SRC))

UNIT_SRC   = $(wildcard tests/unit/*.c)
UNIT_BIN   = $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNIT_SRC))

.PHONY: all help deps deps-demo deps-test demo test check clean install asan tsan format bench sim tests docs
all: $(BUILD)/shardmill

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 18

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

$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(CORE_OBJ)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -o $@ $^ $(LDLIBS_ALL) -lcmocka

tests: $(BUILD)/shardmill $(UNIT_BIN)

format:          ## clang-format over the tree
	clang-format -i $$(git ls-files '*.c' '*.h')

clean:           ## remove what was built
	rm -rf $(BUILD)

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
