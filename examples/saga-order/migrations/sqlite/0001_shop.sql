-- What the steps change. There is no unique key on the tables of effects: one that happened twice
-- would show as two rows.
CREATE TABLE stock (
    product_id TEXT PRIMARY KEY,
    available  INTEGER NOT NULL CHECK (available >= 0)
) WITHOUT ROWID;

-- One row for each product of an order. Status: held, released, used.
CREATE TABLE reservations (
    reservation_id TEXT NOT NULL,
    order_id       TEXT NOT NULL,
    product_id     TEXT NOT NULL REFERENCES stock (product_id),
    quantity       INTEGER NOT NULL CHECK (quantity > 0),
    status         TEXT NOT NULL
);
CREATE INDEX reservations_by_id ON reservations (reservation_id);
CREATE INDEX reservations_of_order ON reservations (order_id);

-- Amounts are in cents. Status: captured, refunded.
CREATE TABLE payments (
    payment_id  TEXT NOT NULL,
    order_id    TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    amount      INTEGER NOT NULL,
    refunded    INTEGER NOT NULL DEFAULT 0,
    status      TEXT NOT NULL
);
CREATE INDEX payments_by_id ON payments (payment_id);
CREATE INDEX payments_of_order ON payments (order_id);

-- Status: created, cancelled.
CREATE TABLE shipments (
    shipment_id TEXT NOT NULL,
    order_id    TEXT NOT NULL,
    status      TEXT NOT NULL
);
CREATE INDEX shipments_by_id ON shipments (shipment_id);
CREATE INDEX shipments_of_order ON shipments (order_id);

INSERT INTO stock (product_id, available) VALUES
    ('prod-1', 100000), ('prod-2', 100000), ('prod-3', 100000), ('prod-rare', 3), ('prod-sold-out', 0);
