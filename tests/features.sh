#!/usr/bin/env bash
# Checks that each database, each bus (with SQLite) and each other part builds without the rest, and passes
# its own tests. Arguments select features; the default is all of them. With `--tests` first, it only tests them: what
# the tests need may bring along what a feature forgets, but most crates are built already.
set -euo pipefail
cd "$(dirname "$0")/.."

builds=yes
if [ "${1:-}" = --tests ]; then
    builds=no
    shift
fi
if [ $# -eq 0 ]; then
    set -- sqlite postgres mysql amqp kafka nats redis mqtt inbox http admin author
fi
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-6}

# Runs the unit tests of one crate, and the end-to-end tests whose names contain one of these words, with these
# features only. `admin` is always on, because the tests ask the admin listener for the state of the relay; their
# dev-dependencies are built whatever the features.
tests() {
    local crate=signalbus-$1 features=$2
    shift 2
    local selected=(-p signalbus -p "$crate" --no-default-features --features "signalbus/admin,signalbus/${features//,/,signalbus/}")
    cargo test --quiet "${selected[@]}" --lib
    cargo test --quiet "${selected[@]}" --test e2e -- "$@"
}

builds() {
    [ $builds = no ] || cargo build --quiet -p signalbus --no-default-features --features "$1"
}

for feature; do
    echo "== $feature without the rest"
    case $feature in
        sqlite | postgres | mysql)
            builds "$feature"
            database=${feature/mysql/mariadb}
            others=(::sqlite ::postgres ::mariadb)
            others=("${others[@]/#::$database/run::}")
            # Tests in the skipped modules may need an SQLite outbox as well.
            tests outbox "$feature" "::$database" "${others[@]/#/--skip=}" \
                --skip run:: --skip plugins:: --skip faults:: --skip values::
            ;;
        amqp | kafka | nats | redis | mqtt | inbox)
            builds "sqlite,$feature"
            tests bus "sqlite,$feature" "buses::$feature"
            ;;
        http)
            builds sqlite,http
            tests plugin sqlite,http webhook::
            ;;
        admin)
            builds sqlite,admin
            tests relay sqlite run::admin:: --skip postgres --skip mariadb
            ;;
        author)
            builds sqlite,author
            tests authoring sqlite,author plugins::conformance:: plugins::authors::a_missing_tool --skip ::conforms
            ;;
        *)
            echo "unknown feature $feature" >&2
            exit 64
            ;;
    esac
done
