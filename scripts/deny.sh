#!/bin/sh
# Checks all dependencies by deny.toml: licences, crates that are there twice, where they come
# from, and advisories.
#
#   deny.sh              what `make lint` runs   deny.sh renew CLONE  takes over into advisories/
# what a clone of RustSec's advisory-db says of crates in Cargo.lock
#
# The snapshot of advisories is the folder advisories/, or the one that FLARE_CVM_ADVISORIES
# names: a whole clone will do.
set -eu
cd "$(dirname "$0")/.."
snapshot=${FLARE_CVM_ADVISORIES:-advisories}
work=target/tools/advisories

# Date and commit of a clone, or of what was taken over from one.
state() { cat "$1/SNAPSHOT" 2>/dev/null || git -C "$1" log -1 --format='%cI %H'; }

if [ "${1:-}" = renew ]; then
  state=$(state "$2")
  rm -rf advisories
  mkdir -p advisories/crates
  echo "$state" >advisories/SNAPSHOT
  cp "$2/LICENSE.txt" advisories/
  for name in $(sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.lock | sort -u); do
    [ ! -d "$2/crates/$name" ] || cp -R "$2/crates/$name" advisories/crates/
  done
  exit
fi

checks="bans licenses sources"
if [ -d "$snapshot/crates" ]; then
  # cargo-deny reads a repository of its own, in a folder that is named after the database's address.
  state=$(state "$snapshot")
  database=$work/advisory-db-3157b0e258782691
  rm -rf "$work"
  mkdir -p "$database"
  cp -R "$snapshot/crates" "$database"
  git -C "$database" init --quiet
  git -C "$database" add --all
  GIT_COMMITTER_DATE=${state%% *} git -C "$database" -c user.name=lint -c user.email=lint@localhost \
    commit --quiet --message "$state"
  checks="advisories $checks"
  echo "advisories of RustSec as of $state"
else
  echo "advisories are NOT checked: no snapshot in $snapshot (CONTRIBUTING.md says how to get one)"
fi
${CARGO:-cargo} fetch --quiet --locked --target x86_64-unknown-linux-gnu
# An entry of deny.toml that nothing needs any more is an error too.
target/tools/deny/bin/cargo-deny --locked --offline --log-level error check --hide-inclusion-graph --show-stats \
  --deny unnecessary-skip --deny unmatched-skip $checks
