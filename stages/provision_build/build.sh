#!/bin/sh
here="$(dirname "$0")"; PATH="$PATH:$here/../../target/programs"
exec flare-cvm build "$here" "$@"
