-- Names and values that concern the file as a whole: sealing, canary.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The last epoch given. One row.
CREATE TABLE epochs (
    last INTEGER NOT NULL
) STRICT;
INSERT INTO epochs VALUES (0);

-- How many rows and bytes of payload there are of each kind, in whole and per tenant. Kept by triggers, so that no
-- command can forget it.
CREATE TABLE totals (
    kind TEXT NOT NULL PRIMARY KEY,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO totals VALUES ('calls', 0, 0), ('queue', 0, 0), ('cache', 0, 0), ('escalations', 0, 0), ('confirmations', 0, 0);
CREATE TABLE shares (
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (kind, tenant)
) STRICT, WITHOUT ROWID;

-- state: 0 running, 1 done, 2 failed. lease_until is 0 unless it runs.
CREATE TABLE calls (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    state INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    payload BLOB,
    PRIMARY KEY (tenant, key)
) STRICT;
CREATE INDEX calls_by_expiry ON calls (expires_at, tenant, key);

-- worker is read by people only: who claimed it last.
-- state: 0 waiting, 1 running, 2 done, 3 failed, 4 expired. lease_until is 0 unless it runs, not_before unless it waits.
CREATE TABLE queue (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    route TEXT NOT NULL,
    priority INTEGER NOT NULL,
    webhook TEXT,
    enqueued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    worker TEXT,
    state INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    ended_at INTEGER,
    bytes INTEGER NOT NULL,
    payload BLOB
) STRICT;
CREATE INDEX queue_in_order ON queue (priority, sequence, state, lease_until, expires_at, not_before, route, enqueued_at)
    WHERE state <= 1;
CREATE INDEX queue_by_expiry ON queue (expires_at, sequence) WHERE state <= 1;
CREATE INDEX queue_by_end ON queue (ended_at, sequence) WHERE state >= 2;

-- claimed: 0 or 1. lease_until is 0 unless it is claimed, not_before unless it is not.
CREATE TABLE deliveries (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    webhook TEXT NOT NULL,
    at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    worker TEXT,
    claimed INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    lease_until INTEGER NOT NULL
) STRICT;

CREATE TABLE cache (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    route TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    stored_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    payload BLOB NOT NULL,
    UNIQUE (tenant, route, fingerprint)
) STRICT;
CREATE INDEX cache_by_age ON cache (tenant, sequence);
CREATE INDEX cache_by_expiry ON cache (expires_at, sequence);

CREATE TABLE escalations (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    route TEXT NOT NULL,
    request_id TEXT NOT NULL,
    failure TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    decided_at INTEGER,
    decided_by TEXT,
    bytes INTEGER NOT NULL,
    question BLOB NOT NULL,
    payload BLOB NOT NULL,
    decision BLOB
) STRICT;
CREATE INDEX escalations_by_tenant ON escalations (tenant, sequence);
CREATE INDEX escalations_open ON escalations (sequence) WHERE decided_at IS NULL;
CREATE INDEX escalations_decided ON escalations (decided_at, sequence) WHERE decided_at IS NOT NULL;

CREATE TABLE confirmations (
    token_hash BLOB NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    route TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX confirmations_by_expiry ON confirmations (expires_at);

CREATE TRIGGER calls_in AFTER INSERT ON calls BEGIN
    UPDATE totals SET rows = rows + 1, bytes = bytes + new.bytes WHERE kind = 'calls';
    INSERT INTO shares VALUES ('calls', new.tenant, 1, new.bytes)
        ON CONFLICT DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER calls_out AFTER DELETE ON calls BEGIN
    UPDATE totals SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'calls';
    UPDATE shares SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'calls' AND tenant = old.tenant;
    DELETE FROM shares WHERE kind = 'calls' AND tenant = old.tenant AND rows = 0;
END;
CREATE TRIGGER calls_resized AFTER UPDATE OF bytes ON calls BEGIN
    UPDATE totals SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'calls';
    UPDATE shares SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'calls' AND tenant = new.tenant;
END;

CREATE TRIGGER queue_in AFTER INSERT ON queue BEGIN
    UPDATE totals SET rows = rows + 1, bytes = bytes + new.bytes WHERE kind = 'queue';
    INSERT INTO shares VALUES ('queue', new.tenant, 1, new.bytes)
        ON CONFLICT DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER queue_out AFTER DELETE ON queue BEGIN
    UPDATE totals SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'queue';
    UPDATE shares SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'queue' AND tenant = old.tenant;
    DELETE FROM shares WHERE kind = 'queue' AND tenant = old.tenant AND rows = 0;
END;
CREATE TRIGGER queue_resized AFTER UPDATE OF bytes ON queue BEGIN
    UPDATE totals SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'queue';
    UPDATE shares SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'queue' AND tenant = new.tenant;
END;

CREATE TRIGGER cache_in AFTER INSERT ON cache BEGIN
    UPDATE totals SET rows = rows + 1, bytes = bytes + new.bytes WHERE kind = 'cache';
    INSERT INTO shares VALUES ('cache', new.tenant, 1, new.bytes)
        ON CONFLICT DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER cache_out AFTER DELETE ON cache BEGIN
    UPDATE totals SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'cache';
    UPDATE shares SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'cache' AND tenant = old.tenant;
    DELETE FROM shares WHERE kind = 'cache' AND tenant = old.tenant AND rows = 0;
END;
CREATE TRIGGER cache_resized AFTER UPDATE OF bytes ON cache BEGIN
    UPDATE totals SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'cache';
    UPDATE shares SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'cache' AND tenant = new.tenant;
END;

CREATE TRIGGER escalations_in AFTER INSERT ON escalations BEGIN
    UPDATE totals SET rows = rows + 1, bytes = bytes + new.bytes WHERE kind = 'escalations';
    INSERT INTO shares VALUES ('escalations', new.tenant, 1, new.bytes)
        ON CONFLICT DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER escalations_out AFTER DELETE ON escalations BEGIN
    UPDATE totals SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'escalations';
    UPDATE shares SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'escalations' AND tenant = old.tenant;
    DELETE FROM shares WHERE kind = 'escalations' AND tenant = old.tenant AND rows = 0;
END;
CREATE TRIGGER escalations_resized AFTER UPDATE OF bytes ON escalations BEGIN
    UPDATE totals SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'escalations';
    UPDATE shares SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'escalations' AND tenant = new.tenant;
END;

CREATE TRIGGER confirmations_in AFTER INSERT ON confirmations BEGIN
    UPDATE totals SET rows = rows + 1, bytes = bytes + new.bytes WHERE kind = 'confirmations';
    INSERT INTO shares VALUES ('confirmations', new.tenant, 1, new.bytes)
        ON CONFLICT DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER confirmations_out AFTER DELETE ON confirmations BEGIN
    UPDATE totals SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'confirmations';
    UPDATE shares SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'confirmations' AND tenant = old.tenant;
    DELETE FROM shares WHERE kind = 'confirmations' AND tenant = old.tenant AND rows = 0;
END;
CREATE TRIGGER confirmations_resized AFTER UPDATE OF bytes ON confirmations BEGIN
    UPDATE totals SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'confirmations';
    UPDATE shares SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'confirmations' AND tenant = new.tenant;
END;
