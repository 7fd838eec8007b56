#!/usr/bin/env bash
# Sends the signals of an SQLite outbox through plugins, step by step. `make demo` runs this.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '\033[2m$ signalbus %s\033[0m\n' "$*"; "$signalbus" "$@"; }

signalbus=$PWD/target/demo/signalbus
demo=$PWD/target/demo-project
rm -rf "$demo"

say 'Creating a project: a configuration, an outbox with 3,000 signals of each of two types, two plugins'
"$signalbus" init "$demo" --signals 3000 | sed -n 1p
cd "$demo"
show check
show pending

say 'Sending: each row goes to the WebAssembly plugin of its type, and is deleted once that answers "sent"'
# One of the orders has no customer, so that its plugin rejects it: exit status 1.
show flush --wait 0 2>relay.log || true
echo '… and the plugins logged (in target/demo-project/relay.log):'
grep -F -m 2 'order placed' relay.log | cut -c1-150
grep -F -m 2 'columns=' relay.log | cut -c1-150

say 'What is pending now, and what could not be sent'
show pending
show dead list

say 'Try it yourself'
cat <<END
cd target/demo-project
export PATH=\$PATH:$(dirname "$signalbus")
signalbus dead show 1         # the row that could not be sent
signalbus dead redrive 1      # makes it due again
signalbus pending
signalbus flush --wait 0
signalbus run                 # the relay: sends whatever is inserted, until Ctrl-C
signalbus init ../shop        # creates another project; then see "Your own plugin" in README.md
END
