-- Escalations of work beside those of requests: kind, origin, what was shown, who hears of it when, the verb.
-- A request has route, request_id and failure; work has its run, its step, and scope and key in the tenant's ledger, as
-- far as there are any. level: how many have heard of it, NULL before it was first looked at; next_at is when somebody has to, next. watch_epoch and
-- watch_until: the claim of whoever looks after that; until is 0 once they have.
CREATE TABLE escalations_grown (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    route TEXT,
    request_id TEXT,
    failure TEXT,
    run TEXT,
    step TEXT,
    scope TEXT,
    key TEXT,
    fingerprint BLOB NOT NULL,
    attempts INTEGER NOT NULL,
    shown BLOB NOT NULL,
    opened_at INTEGER NOT NULL,
    answer_by INTEGER,
    level INTEGER,
    next_at INTEGER,
    watch_epoch INTEGER NOT NULL,
    watch_until INTEGER NOT NULL,
    decided_at INTEGER,
    decided_by TEXT,
    verb TEXT,
    bytes INTEGER NOT NULL,
    question BLOB NOT NULL,
    payload BLOB NOT NULL,
    decision BLOB
) STRICT;
-- What was shown of the older ones is not hashed any more: a number of their own stands for it.
INSERT INTO escalations_grown (sequence, id, tenant, kind, route, request_id, failure, fingerprint, attempts, shown,
    opened_at, next_at, watch_epoch, watch_until, decided_at, decided_by, verb, bytes, question, payload, decision)
    SELECT sequence, id, tenant, 'call', route, request_id, failure, zeroblob(32), 0, randomblob(32), opened_at, opened_at,
        0, 0, decided_at, decided_by, CASE WHEN decided_at IS NULL THEN NULL ELSE 'edit' END, bytes, question, payload,
        decision
    FROM escalations ORDER BY sequence;
UPDATE sqlite_sequence SET seq = (SELECT max(seq) FROM sqlite_sequence WHERE name IN ('escalations', 'escalations_grown'))
    WHERE name = 'escalations_grown';
DROP TABLE escalations;
ALTER TABLE escalations_grown RENAME TO escalations;
CREATE INDEX escalations_by_tenant ON escalations (tenant, sequence);
CREATE INDEX escalations_by_run ON escalations (run, sequence) WHERE run IS NOT NULL;
CREATE INDEX escalations_open ON escalations (sequence) WHERE decided_at IS NULL;
CREATE INDEX escalations_due ON escalations (next_at, sequence) WHERE decided_at IS NULL AND next_at IS NOT NULL;
CREATE INDEX escalations_decided ON escalations (decided_at, sequence) WHERE decided_at IS NOT NULL;

CREATE TRIGGER escalations_in AFTER INSERT ON escalations BEGIN
    UPDATE totals SET rows = rows + 1, bytes = bytes + new.bytes WHERE kind = 'escalations';
    INSERT INTO shares VALUES ('escalations', new.tenant, 1, new.bytes)
        ON CONFLICT DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER escalations_out AFTER DELETE ON escalations BEGIN
    UPDATE totals SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'escalations';
    UPDATE shares SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'escalations' AND tenant = old.tenant;
    DELETE FROM shares WHERE kind = 'escalations' AND tenant = old.tenant AND rows = 0;
    DELETE FROM notices WHERE escalation = old.id;
END;
CREATE TRIGGER escalations_resized AFTER UPDATE OF bytes ON escalations BEGIN
    UPDATE totals SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'escalations';
    UPDATE shares SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'escalations' AND tenant = new.tenant;
END;

-- Who is to hear of an escalation, and who has: one row of each for each channel, kept as long as the escalation.
-- about: 0 opened, 1 reminder, 2 next level, 3 decided. told: 0 or 1. epoch is that of the last claim, lease_until 0 unless
-- it stands.
CREATE TABLE notices (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    escalation TEXT NOT NULL,
    channel TEXT NOT NULL,
    about INTEGER NOT NULL,
    at INTEGER NOT NULL,
    told INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    UNIQUE (escalation, channel)
) STRICT;
CREATE INDEX notices_to_tell ON notices (sequence) WHERE told = 0;

-- Who decided what, for good. hash: of the entry and of the hash before.
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    subject TEXT NOT NULL,
    tenant TEXT NOT NULL,
    details TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX audit_by_subject ON audit (subject, number);
CREATE TRIGGER audit_is_added_to BEFORE INSERT ON audit
    WHEN new.number <> coalesce((SELECT max(number) FROM audit), 0) + 1
    BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
