#!/bin/sh
# The C compiler for build scripts (.cargo/config.toml), for the same reason as rustc.sh: C code
# names its files in errors.
exec cc "$@" -ffile-prefix-map="${CARGO_HOME:-$HOME/.cargo}=/cargo" -ffile-prefix-map="${0%/scripts/cc.sh}=/flare-cvm"
