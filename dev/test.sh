#!/usr/bin/env bash
# Runs every test, then says what was skipped and why, and ends with the runner's summary.
set -uo pipefail
cd "$(dirname "$0")/.."

log=target/nextest.log
rm -f target/skips.txt "$log"
if [ -t 2 ]; then
    cargo nextest run --workspace --no-fail-fast
    status=$?
else
    cargo nextest run --workspace --no-fail-fast 2>&1 | tee "$log"
    status=$?
fi
if [ -s target/skips.txt ]; then
    printf '\nskipped:\n'
    sort -u target/skips.txt
fi
if [ -s "$log" ]; then
    printf '\n'
    grep -E '^ +Summary \[' "$log" | tail -n 1
fi
exit "$status"
