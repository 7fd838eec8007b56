#!/usr/bin/env bash
# The main job on an SQLite outbox: signals wait, plugins send them, the rows are gone.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '\033[2m$ signalbus %s\033[0m\n' "$*"; "$signalbus" "$@"; }

signalbus=$PWD/target/demo/signalbus
demo=$PWD/target/demo-project
rm -rf "$demo"

say 'A new project: a configuration, an outbox with 3,000 signals of each of two types, two plugins'
"$signalbus" init "$demo" --signals 3000 | sed -n 1p
cd "$demo"
show check
show pending

say 'Sending them: each row goes to the Wasm plugin of its type, and is deleted once that says "sent"'
# One of the orders has no customer: status 1 says that something could not be sent.
show flush --wait 0 2>relay.log || true
echo '… and the plugins wrote to the log, kept in target/demo-project/relay.log:'
grep -F -m 2 'order placed' relay.log | cut -c1-150
grep -F -m 2 'columns=' relay.log | cut -c1-150

say 'What waits now, and what could not be sent'
show pending
show dead list

say 'Play on'
cat <<END
cd target/demo-project
export PATH=\$PATH:$(dirname "$signalbus")
signalbus dead show 1         # the row that could not be sent
signalbus dead redrive 1      # back into its table, to be sent again
signalbus pending
signalbus flush --wait 0
signalbus run                 # the relay: sends whatever is inserted, until Ctrl-C
signalbus init ../another     # a project of your own; then see "Your own plugin" in README.md
END
