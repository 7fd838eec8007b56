CREATE TABLE IF NOT EXISTS signalbus_schema (version integer NOT NULL, source text NOT NULL);
CREATE TABLE IF NOT EXISTS signalbus_lane (signal_type text PRIMARY KEY);
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
CREATE TABLE IF NOT EXISTS signalbus_deferral (
    signal_type text NOT NULL,
    signal_key text NOT NULL,
    order_key text NOT NULL,
    id_seed text NOT NULL,
    attempts integer NOT NULL,
    due_at bigint NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (signal_type, signal_key)
);
CREATE INDEX IF NOT EXISTS signalbus_deferral_due ON signalbus_deferral (signal_type, due_at);
CREATE INDEX IF NOT EXISTS signalbus_deferral_order ON signalbus_deferral (signal_type, order_key);
CREATE TABLE IF NOT EXISTS signalbus_dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    signal_type text NOT NULL,
    signal_key text NOT NULL,
    attempts integer NOT NULL,
    reason text NOT NULL,
    died_at bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS signalbus_dead_letter_signal ON signalbus_dead_letter (signal_type, signal_key);
CREATE TABLE IF NOT EXISTS signalbus_dead_value (
    letter_id bigint NOT NULL,
    position integer NOT NULL,
    name text NOT NULL,
    value text,
    PRIMARY KEY (letter_id, position)
);
INSERT INTO signalbus_schema (version, source) VALUES (2, '{source}')
