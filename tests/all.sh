#!/usr/bin/env bash
# What `make test` does: installs, builds, tests; and tells the time that each step took.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=()
steps=()

step() {
    local name=$1 begun=$SECONDS
    shift
    "$@" || failed+=("$name")
    steps+=("$(printf '%4d s  %s' $((SECONDS - begun)) "$name")")
}

run() { make --no-print-directory "$@"; }

# Packages arrive while the compiler is busy.
install() { run servers toolchains >"$log" 2>&1; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT

step 'setup' run setup libraries
install &
installing=$!
step 'plugins and guests' run ready-made guests
step 'signalbus and its tests' run host-tests
step 'servers and tool-chains (the wait for them)' wait "$installing"
cat "$log"
step 'plugins in eight languages' run -j2 languages
step 'tests' run tests
step 'features, each alone (some of them)' run features ONLY='sqlite redis'

printf '\n== time of each step\n'
printf '%s\n' "${steps[@]}"
printf '%4d s  together\n' "$SECONDS"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
