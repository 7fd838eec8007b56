CREATE TABLE IF NOT EXISTS signalbus_schema (version INT NOT NULL, source VARCHAR(191) CHARACTER SET ascii NOT NULL) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS signalbus_lane (
    signal_type VARCHAR(191) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY,
    table_name TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL
) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS signalbus_claim (
    token VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,
    signal_type VARCHAR(191) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    serial BIGINT NOT NULL,
    owner VARCHAR(191) NOT NULL,
    id_seed VARCHAR(64) CHARACTER SET ascii NOT NULL,
    from_key LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    to_key LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    settled_ranges LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    order_keys LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    in_flight INT NOT NULL,
    takeovers INT NOT NULL,
    expires_at BIGINT NOT NULL,
    INDEX signalbus_claim_signal (signal_type)
) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS signalbus_hold (
    id BIGINT AUTO_INCREMENT PRIMARY KEY,
    signal_type VARCHAR(191) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    signal_key BLOB NOT NULL,
    order_key BLOB NOT NULL,
    fingerprint VARCHAR(64) CHARACTER SET ascii NOT NULL,
    columns LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    id_seed VARCHAR(64) CHARACTER SET ascii NOT NULL,
    state VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    attempts INT NOT NULL,
    due_at BIGINT NOT NULL,
    since BIGINT NOT NULL,
    reason TEXT CHARACTER SET utf8mb4 NOT NULL,
    reason_group VARCHAR(16) CHARACTER SET ascii NOT NULL,
    INDEX signalbus_hold_key (signal_type, signal_key(400)),
    INDEX signalbus_hold_due (signal_type, state, due_at),
    INDEX signalbus_hold_order (signal_type, order_key(400))
) ENGINE = InnoDB;
INSERT INTO signalbus_schema (version, source) VALUES (2, '{source}')
