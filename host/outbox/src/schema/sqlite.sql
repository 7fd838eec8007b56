CREATE TABLE IF NOT EXISTS signalbus_schema (version INTEGER NOT NULL, source TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS signalbus_lane (signal_type TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID;
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
CREATE TABLE IF NOT EXISTS signalbus_deferral (
    signal_type TEXT NOT NULL,
    signal_key TEXT NOT NULL,
    order_key TEXT NOT NULL,
    id_seed TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (signal_type, signal_key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS signalbus_deferral_due ON signalbus_deferral (signal_type, due_at);
CREATE INDEX IF NOT EXISTS signalbus_deferral_order ON signalbus_deferral (signal_type, order_key);
CREATE TABLE IF NOT EXISTS signalbus_dead_letter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    signal_type TEXT NOT NULL,
    signal_key TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    reason TEXT NOT NULL,
    died_at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS signalbus_dead_letter_signal ON signalbus_dead_letter (signal_type, signal_key);
CREATE TABLE IF NOT EXISTS signalbus_dead_value (
    letter_id INTEGER NOT NULL,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    value,
    PRIMARY KEY (letter_id, position)
) WITHOUT ROWID;
INSERT INTO signalbus_schema (version, source) VALUES (2, '{source}')
