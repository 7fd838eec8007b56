#!/usr/bin/env bash
# That each database, each bus beside SQLite, and each other part builds and passes its tests without
# the rest. Without arguments: all of them; with arguments: these.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then
    set -- sqlite postgres mysql amqp kafka nats redis mqtt inbox http admin author
fi
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-8}
for feature; do
    case $feature in
        sqlite | postgres | mysql) features=$feature ;;
        *) features=sqlite,$feature ;;
    esac
    echo "== signalbus with $features alone"
    # First without the tests: they bring dependencies of their own along.
    cargo build --quiet -p signalbus --no-default-features --features "$features"
    cargo test --quiet -p signalbus --no-default-features --features "$features"
done
