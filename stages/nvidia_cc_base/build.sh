#!/bin/sh
here="$(dirname "$0")"; PATH="$PATH:$here/../../target/release"
exec flare-cvm build "$here" "$@"
