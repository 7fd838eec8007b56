#!/usr/bin/env bash
# Runs `make test`: installs, builds and tests everything, then prints how long each step took.
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

# Packages are installed while the compiler is busy, and the Python package is tested beside the relay, which mostly waits.
install() { run servers toolchains >"$logs/install" 2>&1; }
python() { run python >"$logs/python" 2>&1; }
tests() { run tests 2>&1 | tee "$logs/tests"; }
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

step 'setup' run setup libraries
install &
installing=$!
step 'plugins and guests' run ready-made guests
step 'signalbus and its tests' run host-tests
step 'waiting for servers and toolchains' wait "$installing"
cat "$logs/install"
step 'plugins in every language' run -j2 languages
python &
checking=$!
step 'tests' tests
step 'waiting for the Python package' wait "$checking"
cat "$logs/python"
step 'one bus without the rest' tests/features.sh --tests redis

printf '\n== duration of each step\n'
printf '%s\n' "${steps[@]}"
printf '%4d s  in total\n' "$SECONDS"
if [ ${#failed[@]} -gt 0 ]; then
    # What the failed tests said is far above.
    sed -n '/^---- .* stdout ----$/,/^failures:$/p' "$logs/tests" | cut -c 1-2000 | head -c 20000
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
