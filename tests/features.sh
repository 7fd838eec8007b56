#!/usr/bin/env bash
# Checks that each database, each bus (with SQLite) and each other part builds without the rest, and passes
# its own tests. Arguments select features; the default is all of them.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then
    set -- sqlite postgres mysql amqp kafka nats redis mqtt inbox http admin author
fi
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-6}

# Runs the unit tests of one crate, with these features only.
unit() { cargo test --quiet -p "signalbus-$1" --no-default-features --features "$2"; }

# Runs the end-to-end tests whose names contain one of these words. `admin` is always on, because the tests ask
# the admin listener for the state of the relay. Their dev-dependencies are built whatever the features.
e2e() {
    local features=$1
    shift
    cargo test --quiet -p signalbus --no-default-features --features "$features,admin" --test e2e -- "$@"
}

for feature; do
    echo "== $feature without the rest"
    case $feature in
        sqlite | postgres | mysql)
            cargo build --quiet -p signalbus --no-default-features --features "$feature"
            unit outbox "$feature"
            database=${feature/mysql/mariadb}
            # Tests in the skipped modules may need an SQLite outbox as well.
            e2e "$feature" "::$database" --skip run:: --skip plugins:: --skip faults:: --skip values::
            ;;
        amqp | kafka | nats | redis | mqtt | inbox)
            cargo build --quiet -p signalbus --no-default-features --features "sqlite,$feature"
            unit bus "$feature"
            e2e "sqlite,$feature" "buses::$feature"
            ;;
        http)
            cargo build --quiet -p signalbus --no-default-features --features sqlite,http
            unit plugin http
            e2e sqlite,http webhook::
            ;;
        admin)
            cargo build --quiet -p signalbus --no-default-features --features sqlite,admin
            unit relay admin
            e2e sqlite run::admin:: --skip postgres --skip mariadb
            ;;
        author)
            cargo build --quiet -p signalbus --no-default-features --features sqlite,author
            cargo test --quiet -p signalbus-authoring
            e2e sqlite,author plugins::conformance:: plugins::authors::a_missing_tool --skip ::conforms
            ;;
        *)
            echo "unknown feature $feature" >&2
            exit 64
            ;;
    esac
done
