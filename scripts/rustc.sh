#!/bin/bash
# rustc as cargo calls it (.cargo/config.toml): the same source gives the same program in every
# folder. Not `sh`, which drops variables whose names have a hyphen: CARGO_BIN_EXE_cvm-agent.
exec "$@" --remap-path-prefix="${CARGO_HOME:-$HOME/.cargo}=/cargo" \
  --remap-path-prefix="${0%/scripts/rustc.sh}=/flare-cvm"
