#!/bin/sh
exec flare-cvm build "$(dirname "$0")" "$@"
