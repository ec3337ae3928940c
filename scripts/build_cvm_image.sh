#!/bin/sh
# NVFLARE's build_image_cmd (give its absolute path): seals one participant from its cc_config.
# Standard error joins standard output: the packager waits for a line of each in turn, so two pipes
# would show nothing before the end.
set -eu
exec 2>&1
program=${FLARE_CVM:-$(dirname "$(readlink -f "$0")")/../target/programs/flare-cvm}
[ $# = 1 ] || { echo "usage: build_cvm_image.sh CC_CONFIG.yml"; exit 2; }
command -v "$program" >/dev/null || {
  echo "error: no program $program: run \`make build\`, or set FLARE_CVM"
  exit 1
}
exec "$program" provision --cc-config "$1"
