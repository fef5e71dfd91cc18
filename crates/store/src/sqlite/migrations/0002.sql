-- Runs. A command on one reads and writes its narrow row here; what it works on and what came of it are in run_payloads.
INSERT INTO totals VALUES ('runs', 0, 0), ('effects', 0, 0);

-- What claims choose by. There are few of them, so that a claim walks the due runs of those it accepts and no others.
-- runs is kept by triggers; a lane without runs is gone.
CREATE TABLE lanes (
    lane INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    queue TEXT NOT NULL,
    workflow TEXT NOT NULL,
    version TEXT NOT NULL,
    runs INTEGER NOT NULL,
    UNIQUE (tenant, queue, workflow, version)
) STRICT;
CREATE INDEX lanes_by_queue ON lanes (queue, tenant);

-- state: 0 ready, 1 running, 2 waiting, 3 parked, 4 quarantined, 5 done, 6 failed, 7 cancelled.
-- since: when it came to its state, or to its claim. waits_for: a JSON array of names. parked: why.
-- bytes: of its input, its output, its journal and its waiting signals.
CREATE TABLE runs (
    run INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    lane INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    unclaimed INTEGER NOT NULL,
    state INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    since INTEGER NOT NULL,
    due INTEGER,
    barren INTEGER NOT NULL,
    cancelling INTEGER NOT NULL,
    spent INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    ended_at INTEGER,
    created_at INTEGER NOT NULL,
    deadline INTEGER,
    cost_max INTEGER,
    input_hash BLOB NOT NULL,
    key TEXT,
    key_hash BLOB,
    worker TEXT,
    waits_at TEXT,
    waits_for TEXT,
    parked TEXT,
    escalation TEXT,
    last_step TEXT,
    UNIQUE (tenant, id)
) STRICT;
CREATE UNIQUE INDEX runs_by_key ON runs (tenant, key) WHERE key IS NOT NULL;
CREATE INDEX runs_of_tenant ON runs (tenant, run);
CREATE INDEX runs_by_state ON runs (state, run);
CREATE INDEX runs_live ON runs (lane, state, unclaimed) WHERE state <= 4;
CREATE INDEX runs_held ON runs (worker, run) WHERE state = 1;
CREATE INDEX runs_escalated ON runs (escalation) WHERE escalation IS NOT NULL;
CREATE INDEX runs_to_drop ON runs (ended_at, run) WHERE ended_at IS NOT NULL AND bytes > 0;
CREATE INDEX runs_by_end ON runs (ended_at, run) WHERE ended_at IS NOT NULL;

-- The runs that can be claimed by and by, in the order in which they are claimed: one that is ready or held, or waits
-- for a timer. One that waits for a signal or a person, and one that is over, has no row here.
-- held: 1 if somebody holds it until claimable_from.
CREATE TABLE ready (
    lane INTEGER NOT NULL,
    held INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    claimable_from INTEGER NOT NULL,
    run INTEGER NOT NULL,
    PRIMARY KEY (lane, held, priority, claimable_from, run)
) STRICT, WITHOUT ROWID;

-- Payloads beyond a size, once for each tenant and content. refs is kept by triggers; what nothing refers to is gone.
-- address: a keyed hash of the content.
CREATE TABLE blobs (
    blob INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    address BLOB NOT NULL,
    refs INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    payload BLOB NOT NULL,
    UNIQUE (tenant, address)
) STRICT;

-- slot: twice the run, and one more for its output. Where a payload has a blob, the column holds its sealed address.
CREATE TABLE run_payloads (
    slot INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    payload BLOB NOT NULL,
    payload_blob INTEGER
) STRICT;

-- A run's journal. Of a step whose entry is in the tenant's ledger, effect is its row there, and the rest stays as it was
-- first written: the entry there counts.
-- class and budget are JSON; none is pure, and the usual one. state: 0 intent, 1 done, 2 failed_final, 3 unknown,
-- 4 verifying, 5 absent, 6 parked. by_run and by_step: what the last attempt was begun for. fenced: its claim is that
-- run's, and not one of its own. look_at: nobody may be looking after it from then on. signal and timer: of a wait.
CREATE TABLE steps (
    step INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    key TEXT NOT NULL,
    effect INTEGER,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    undoes TEXT,
    divergences INTEGER NOT NULL,
    state INTEGER NOT NULL,
    class TEXT,
    fingerprint BLOB NOT NULL,
    budget TEXT,
    attempt INTEGER NOT NULL,
    forgiven INTEGER NOT NULL,
    unclear INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    by_run INTEGER,
    by_step TEXT,
    fenced INTEGER NOT NULL,
    held_until INTEGER NOT NULL,
    deadline INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    budget_from INTEGER NOT NULL,
    spent INTEGER NOT NULL,
    why TEXT,
    approved INTEGER NOT NULL,
    escalation TEXT,
    begun_at INTEGER NOT NULL,
    ended_at INTEGER,
    look_at INTEGER,
    signal TEXT,
    timer INTEGER,
    bytes INTEGER NOT NULL,
    payload BLOB,
    payload_blob INTEGER,
    input BLOB,
    input_blob INTEGER,
    undo BLOB,
    undo_blob INTEGER,
    decision BLOB,
    decision_blob INTEGER
) STRICT;
CREATE UNIQUE INDEX steps_by_key ON steps (run, key);
CREATE UNIQUE INDEX steps_in_order ON steps (run, sequence);
CREATE INDEX steps_to_look_at ON steps (look_at, step) WHERE look_at IS NOT NULL;

-- The tenants' ledgers: entries that any run, or a program without one, may name by scope and key.
CREATE TABLE effects (
    effect INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    undoes TEXT,
    divergences INTEGER NOT NULL,
    state INTEGER NOT NULL,
    class TEXT,
    fingerprint BLOB NOT NULL,
    budget TEXT,
    attempt INTEGER NOT NULL,
    forgiven INTEGER NOT NULL,
    unclear INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    by_run INTEGER,
    by_step TEXT,
    fenced INTEGER NOT NULL,
    held_until INTEGER NOT NULL,
    deadline INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    budget_from INTEGER NOT NULL,
    spent INTEGER NOT NULL,
    why TEXT,
    approved INTEGER NOT NULL,
    escalation TEXT,
    begun_at INTEGER NOT NULL,
    ended_at INTEGER,
    look_at INTEGER,
    bytes INTEGER NOT NULL,
    payload BLOB,
    payload_blob INTEGER,
    input BLOB,
    input_blob INTEGER,
    undo BLOB,
    undo_blob INTEGER,
    decision BLOB,
    decision_blob INTEGER,
    UNIQUE (tenant, scope, key)
) STRICT;
CREATE INDEX effects_to_look_at ON effects (look_at, effect) WHERE look_at IS NOT NULL;
CREATE INDEX effects_to_drop ON effects (ended_at, effect) WHERE ended_at IS NOT NULL AND bytes > 0;
CREATE INDEX effects_by_end ON effects (ended_at, effect) WHERE ended_at IS NOT NULL;
CREATE INDEX steps_of_effect ON steps (effect) WHERE effect IS NOT NULL;

-- Signals. One that was given on stays without its payload, so that the same one does not count twice.
CREATE TABLE inbox (
    signal INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL,
    dedupe TEXT NOT NULL,
    name TEXT NOT NULL,
    given INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    payload BLOB,
    payload_blob INTEGER
) STRICT;
CREATE UNIQUE INDEX inbox_by_dedupe ON inbox (run, dedupe);
CREATE INDEX inbox_waiting ON inbox (run, signal, name) WHERE given = 0;

-- No tenant: Outlast's own. queues and accepts: JSON.
CREATE TABLE workers (
    worker TEXT NOT NULL PRIMARY KEY,
    tenant TEXT,
    label TEXT NOT NULL,
    queues TEXT NOT NULL,
    accepts TEXT NOT NULL,
    standby INTEGER NOT NULL,
    draining INTEGER NOT NULL,
    since INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT;
CREATE INDEX workers_by_sight ON workers (seen_at, worker);

CREATE TRIGGER runs_in AFTER INSERT ON runs BEGIN
    UPDATE totals SET rows = rows + 1, bytes = bytes + new.bytes WHERE kind = 'runs';
    INSERT INTO shares VALUES ('runs', new.tenant, 1, new.bytes)
        ON CONFLICT DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
    UPDATE lanes SET runs = runs + 1 WHERE lane = new.lane;
END;
CREATE TRIGGER runs_out AFTER DELETE ON runs BEGIN
    UPDATE totals SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'runs';
    UPDATE shares SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'runs' AND tenant = old.tenant;
    DELETE FROM shares WHERE kind = 'runs' AND tenant = old.tenant AND rows = 0;
    UPDATE lanes SET runs = runs - 1 WHERE lane = old.lane;
    DELETE FROM lanes WHERE lane = old.lane AND runs = 0;
END;
CREATE TRIGGER runs_resized AFTER UPDATE OF bytes ON runs WHEN new.bytes <> old.bytes BEGIN
    UPDATE totals SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'runs';
    UPDATE shares SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'runs' AND tenant = new.tenant;
END;
CREATE TRIGGER runs_moved AFTER UPDATE OF lane ON runs WHEN new.lane <> old.lane BEGIN
    UPDATE lanes SET runs = runs + 1 WHERE lane = new.lane;
    UPDATE lanes SET runs = runs - 1 WHERE lane = old.lane;
    DELETE FROM lanes WHERE lane = old.lane AND runs = 0;
END;

CREATE TRIGGER effects_in AFTER INSERT ON effects BEGIN
    UPDATE totals SET rows = rows + 1, bytes = bytes + new.bytes WHERE kind = 'effects';
    INSERT INTO shares VALUES ('effects', new.tenant, 1, new.bytes)
        ON CONFLICT DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER effects_out AFTER DELETE ON effects BEGIN
    UPDATE totals SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'effects';
    UPDATE shares SET rows = rows - 1, bytes = bytes - old.bytes WHERE kind = 'effects' AND tenant = old.tenant;
    DELETE FROM shares WHERE kind = 'effects' AND tenant = old.tenant AND rows = 0;
END;
CREATE TRIGGER effects_resized AFTER UPDATE OF bytes ON effects WHEN new.bytes <> old.bytes BEGIN
    UPDATE totals SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'effects';
    UPDATE shares SET bytes = bytes + new.bytes - old.bytes WHERE kind = 'effects' AND tenant = new.tenant;
END;

-- Every reference to a blob is counted, and the last one to go takes it along.
CREATE TRIGGER blobs_unused AFTER UPDATE OF refs ON blobs WHEN new.refs = 0 BEGIN
    DELETE FROM blobs WHERE blob = new.blob;
END;
CREATE TRIGGER run_payloads_payload_in AFTER INSERT ON run_payloads WHEN new.payload_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.payload_blob;
END;
CREATE TRIGGER run_payloads_payload_out AFTER DELETE ON run_payloads WHEN old.payload_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.payload_blob;
END;
CREATE TRIGGER run_payloads_payload_set AFTER UPDATE OF payload_blob ON run_payloads WHEN new.payload_blob IS NOT old.payload_blob BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.payload_blob;
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.payload_blob;
END;
CREATE TRIGGER inbox_payload_in AFTER INSERT ON inbox WHEN new.payload_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.payload_blob;
END;
CREATE TRIGGER inbox_payload_out AFTER DELETE ON inbox WHEN old.payload_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.payload_blob;
END;
CREATE TRIGGER inbox_payload_set AFTER UPDATE OF payload_blob ON inbox WHEN new.payload_blob IS NOT old.payload_blob BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.payload_blob;
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.payload_blob;
END;
CREATE TRIGGER steps_payload_in AFTER INSERT ON steps WHEN new.payload_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.payload_blob;
END;
CREATE TRIGGER steps_payload_out AFTER DELETE ON steps WHEN old.payload_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.payload_blob;
END;
CREATE TRIGGER steps_payload_set AFTER UPDATE OF payload_blob ON steps WHEN new.payload_blob IS NOT old.payload_blob BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.payload_blob;
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.payload_blob;
END;
CREATE TRIGGER steps_input_in AFTER INSERT ON steps WHEN new.input_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.input_blob;
END;
CREATE TRIGGER steps_input_out AFTER DELETE ON steps WHEN old.input_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.input_blob;
END;
CREATE TRIGGER steps_input_set AFTER UPDATE OF input_blob ON steps WHEN new.input_blob IS NOT old.input_blob BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.input_blob;
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.input_blob;
END;
CREATE TRIGGER steps_undo_in AFTER INSERT ON steps WHEN new.undo_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.undo_blob;
END;
CREATE TRIGGER steps_undo_out AFTER DELETE ON steps WHEN old.undo_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.undo_blob;
END;
CREATE TRIGGER steps_undo_set AFTER UPDATE OF undo_blob ON steps WHEN new.undo_blob IS NOT old.undo_blob BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.undo_blob;
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.undo_blob;
END;
CREATE TRIGGER steps_decision_in AFTER INSERT ON steps WHEN new.decision_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.decision_blob;
END;
CREATE TRIGGER steps_decision_out AFTER DELETE ON steps WHEN old.decision_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.decision_blob;
END;
CREATE TRIGGER steps_decision_set AFTER UPDATE OF decision_blob ON steps WHEN new.decision_blob IS NOT old.decision_blob BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.decision_blob;
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.decision_blob;
END;
CREATE TRIGGER effects_payload_in AFTER INSERT ON effects WHEN new.payload_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.payload_blob;
END;
CREATE TRIGGER effects_payload_out AFTER DELETE ON effects WHEN old.payload_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.payload_blob;
END;
CREATE TRIGGER effects_payload_set AFTER UPDATE OF payload_blob ON effects WHEN new.payload_blob IS NOT old.payload_blob BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.payload_blob;
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.payload_blob;
END;
CREATE TRIGGER effects_input_in AFTER INSERT ON effects WHEN new.input_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.input_blob;
END;
CREATE TRIGGER effects_input_out AFTER DELETE ON effects WHEN old.input_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.input_blob;
END;
CREATE TRIGGER effects_input_set AFTER UPDATE OF input_blob ON effects WHEN new.input_blob IS NOT old.input_blob BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.input_blob;
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.input_blob;
END;
CREATE TRIGGER effects_undo_in AFTER INSERT ON effects WHEN new.undo_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.undo_blob;
END;
CREATE TRIGGER effects_undo_out AFTER DELETE ON effects WHEN old.undo_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.undo_blob;
END;
CREATE TRIGGER effects_undo_set AFTER UPDATE OF undo_blob ON effects WHEN new.undo_blob IS NOT old.undo_blob BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.undo_blob;
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.undo_blob;
END;
CREATE TRIGGER effects_decision_in AFTER INSERT ON effects WHEN new.decision_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.decision_blob;
END;
CREATE TRIGGER effects_decision_out AFTER DELETE ON effects WHEN old.decision_blob IS NOT NULL BEGIN
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.decision_blob;
END;
CREATE TRIGGER effects_decision_set AFTER UPDATE OF decision_blob ON effects WHEN new.decision_blob IS NOT old.decision_blob BEGIN
    UPDATE blobs SET refs = refs + 1 WHERE blob = new.decision_blob;
    UPDATE blobs SET refs = refs - 1 WHERE blob = old.decision_blob;
END;
