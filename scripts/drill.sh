#!/bin/sh
# One of `make drills` in turn, chosen by the number of commits, so that none rots unseen. The
# argument says how many seconds are left; a drill that may need more is skipped, with a word.
set -eu
cd "$(dirname "$0")/.."
left=$1
# Whether its failure fails the run (`must`), or is only told (`try`) because nobody has seen it pass
# since what it tests changed; minutes under emulation on two cores, by far; the test; the step of
# it, where one needs a time of its own.
drills='try|20|profiles::nvidias_modules_are_loaded_by_their_signature_and_only_so|
try|20|profiles::an_image_for_tdx_boots_with_its_later_kernel|
try|25|federation::a_federation_stops_when_one_fails|a key holder is gone
try|25|federation::a_federation_stops_when_one_fails|a replayed token
try|30|federation::a_federation_stops_when_one_fails|an agent is killed
try|30|federation::a_federation_stops_when_one_fails|a register is extended
try|25|federation::a_federation_stops_when_one_fails|a server without our CVM
try|25|federation::ten_cold_starts_in_a_row_come_up|three'
turn=$(git rev-list --count HEAD 2>/dev/null || echo 1)
# A checkout without history knows no turn but the day's.
[ "$turn" -gt 1 ] || turn=$(($(date +%s) / 86400))
count=$(printf '%s\n' "$drills" | wc -l)
drill=$(printf '%s\n' "$drills" | sed -n "$((turn % count + 1))p")
weight=${drill%%|*}; rest=${drill#*|}; minutes=${rest%%|*}
rest=${rest#*|}; test=${rest%%|*}; step=${rest#*|}
if [ "$left" -lt $((minutes * 60)) ]; then
  echo "drill skipped, $((left / 60)) minutes are left and it may need $minutes: $test $step"
  exit 0
fi
echo "drill of this run: $test $step"
FLARE_CVM_DRILL=$step timeout --verbose --kill-after=30 "$left" \
  cargo test --release --locked --workspace --test boots -- --ignored --nocapture --exact "$test" ||
  { echo "drill FAILED ($weight): $test $step"; [ "$weight" = try ]; }
