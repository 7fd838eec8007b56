CREATE TABLE order_placed (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    customer TEXT,
    total TEXT NOT NULL
);
CREATE TABLE price_changed (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    product TEXT NOT NULL,
    price TEXT NOT NULL,
    valid_from TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {signals})
INSERT INTO order_placed (customer, total)
-- The seventh order has no customer: it becomes a dead letter.
SELECT CASE WHEN i <> 7 THEN 'customer ' || (i % 100) END, printf('%d.%02d', i % 90 + 10, i % 100) FROM n WHERE i <= {signals};
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {signals})
INSERT INTO price_changed (product, price) SELECT 'product ' || (i % 10), printf('%d.99', i % 50 + 1) FROM n WHERE i <= {signals}
