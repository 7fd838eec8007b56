CREATE TABLE IF NOT EXISTS signalbus_schema (version INTEGER NOT NULL, source TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS signalbus_lane (signal_type TEXT PRIMARY KEY NOT NULL, table_name TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signalbus_claim (
    token TEXT PRIMARY KEY NOT NULL,
    signal_type TEXT NOT NULL,
    serial INTEGER NOT NULL,
    owner TEXT NOT NULL,
    id_seed TEXT NOT NULL,
    from_key TEXT,
    to_key TEXT,
    settled_ranges TEXT,
    order_keys TEXT,
    in_flight INTEGER NOT NULL,
    takeovers INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signalbus_hold (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    signal_type TEXT NOT NULL,
    signal_key TEXT NOT NULL,
    order_key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    columns TEXT NOT NULL,
    id_seed TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    since INTEGER NOT NULL,
    reason TEXT NOT NULL,
    reason_group TEXT NOT NULL,
    UNIQUE (signal_type, signal_key)
);
CREATE INDEX IF NOT EXISTS signalbus_hold_due ON signalbus_hold (signal_type, state, due_at);
CREATE INDEX IF NOT EXISTS signalbus_hold_order ON signalbus_hold (signal_type, order_key);
INSERT INTO signalbus_schema (version, source) VALUES (2, '{source}')
