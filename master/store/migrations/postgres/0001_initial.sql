-- The same tables and columns as on the other databases. Text that is compared or sorted goes by its bytes (`C`), whatever
-- the database was created with. Times are microseconds since 1970 in UTC; states are the numbers of millrace-common,
-- where 10 and above are final.

-- The fence: one row. Whoever writes advances `seq` under its own term first.
-- It is rewritten by each transaction: room in its page keeps that from touching an index.
CREATE TABLE leadership (
    id SMALLINT NOT NULL PRIMARY KEY,
    term BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    holder VARCHAR(191) COLLATE "C" NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
INSERT INTO leadership (id, term, seq, holder) VALUES (1, 0, 0, '');

CREATE TABLE workflow (
    name VARCHAR(191) COLLATE "C" NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    cursor_at BIGINT
);

-- `task_names` is a JSON array in the order of the definition: pages name tasks without reading the definition.
CREATE TABLE workflow_version (
    workflow VARCHAR(191) COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    applied_at BIGINT NOT NULL,
    task_names TEXT NOT NULL,
    source TEXT NOT NULL,
    PRIMARY KEY (workflow, version)
);

-- Intervals that a schedule passed over, by its own rules; term, seq and position name the change that recorded them.
CREATE TABLE firing_skip (
    workflow VARCHAR(191) COLLATE "C" NOT NULL,
    term BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    position BIGINT NOT NULL,
    skipped BIGINT NOT NULL,
    is_exact SMALLINT NOT NULL,
    first_start BIGINT NOT NULL,
    first_end BIGINT NOT NULL,
    last_start BIGINT NOT NULL,
    last_end BIGINT NOT NULL,
    PRIMARY KEY (workflow, term, seq, position)
);
CREATE INDEX firing_skip_by_end ON firing_skip (last_end);

CREATE TABLE run (
    id BYTEA NOT NULL PRIMARY KEY,
    workflow VARCHAR(191) COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    trigger_code SMALLINT NOT NULL,
    retry_of BYTEA,
    interval_start BIGINT NOT NULL,
    interval_end BIGINT NOT NULL,
    params TEXT NOT NULL,
    idempotency_key VARCHAR(191) COLLATE "C",
    created_at BIGINT NOT NULL,
    state SMALLINT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT,
    reason TEXT,
    ending SMALLINT,
    ending_reason TEXT
);
CREATE INDEX run_by_workflow ON run (workflow, id);
CREATE INDEX run_by_state ON run (state, id);
CREATE INDEX run_by_workflow_and_state ON run (workflow, state, id);
-- At most one run of a schedule for each interval (trigger_code 1 is the schedule). Ends tell intervals apart and starts
-- do not: after a change from hourly to daily, the day that is under way starts with an hour that was run already.
CREATE UNIQUE INDEX run_scheduled_once ON run (workflow, interval_end) WHERE trigger_code = 1;
CREATE UNIQUE INDEX run_by_idempotency_key ON run (workflow, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- An instance that is still waiting has no row. Rows change a few times: room in the pages keeps that off the indexes.
CREATE TABLE task_instance (
    run_id BYTEA NOT NULL,
    instance_index BIGINT NOT NULL,
    state SMALLINT NOT NULL,
    moved_at BIGINT NOT NULL,
    started_at BIGINT,
    retry_at BIGINT,
    attempts BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    losses BIGINT NOT NULL,
    rejections BIGINT NOT NULL,
    output_values TEXT,
    PRIMARY KEY (run_id, instance_index)
) WITH (fillfactor = 70);

-- `started_at` and `ended_at` are by the executor's clock where it has told them, all other times by the leader's.
CREATE TABLE attempt (
    run_id BYTEA NOT NULL,
    instance_index BIGINT NOT NULL,
    attempt_number BIGINT NOT NULL,
    state SMALLINT NOT NULL,
    executor VARCHAR(191) COLLATE "C" NOT NULL,
    spool_id BYTEA NOT NULL,
    assigned_at BIGINT NOT NULL,
    assigned_term BIGINT NOT NULL,
    assigned_seq BIGINT NOT NULL,
    moved_at BIGINT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT,
    ended_term BIGINT,
    ended_seq BIGINT,
    exit_code BIGINT,
    reason TEXT,
    output_values TEXT,
    is_skipped SMALLINT,
    is_permanent SMALLINT,
    log_bytes BIGINT,
    proof SMALLINT,
    PRIMARY KEY (run_id, instance_index, attempt_number)
) WITH (fillfactor = 70);
-- At most one live attempt of a task instance.
CREATE UNIQUE INDEX attempt_one_live ON attempt (run_id, instance_index) WHERE state < 10;
