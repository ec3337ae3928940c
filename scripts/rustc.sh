#!/bin/sh
# rustc as cargo calls it (.cargo/config.toml): the same source gives the same program in every folder.
exec "$@" --remap-path-prefix="${CARGO_HOME:-$HOME/.cargo}=/cargo" --remap-path-prefix="${0%/scripts/rustc.sh}=/flare-cvm"
