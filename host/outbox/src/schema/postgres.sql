CREATE TABLE IF NOT EXISTS signalbus_schema (version integer NOT NULL, source text NOT NULL);
CREATE TABLE IF NOT EXISTS signalbus_lane (signal_type text PRIMARY KEY, table_name text NOT NULL);
CREATE TABLE IF NOT EXISTS signalbus_claim (
    token text PRIMARY KEY,
    signal_type text NOT NULL,
    serial bigint NOT NULL,
    owner text NOT NULL,
    id_seed text NOT NULL,
    from_key text,
    to_key text,
    settled_ranges text,
    order_keys text,
    in_flight integer NOT NULL,
    takeovers integer NOT NULL,
    expires_at bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS signalbus_claim_signal ON signalbus_claim (signal_type);
CREATE TABLE IF NOT EXISTS signalbus_hold (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    signal_type text NOT NULL,
    signal_key text NOT NULL,
    order_key text NOT NULL,
    fingerprint text NOT NULL,
    columns text NOT NULL,
    id_seed text NOT NULL,
    state text NOT NULL,
    attempts integer NOT NULL,
    due_at bigint NOT NULL,
    since bigint NOT NULL,
    reason text NOT NULL,
    reason_group text NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS signalbus_hold_key ON signalbus_hold (md5(signal_type || ':' || signal_key));
CREATE INDEX IF NOT EXISTS signalbus_hold_range ON signalbus_hold (signal_type, left(signal_key, 24) COLLATE "C");
CREATE INDEX IF NOT EXISTS signalbus_hold_due ON signalbus_hold (signal_type, state, due_at);
CREATE INDEX IF NOT EXISTS signalbus_hold_order ON signalbus_hold (md5(signal_type || ':' || order_key));
INSERT INTO signalbus_schema (version, source) VALUES (2, '{source}')
