-- The same tables and columns as on the other databases, and what takes the place of their partial indexes: columns that
-- are NULL where a row does not count, for NULL is equal to nothing. Text goes by its bytes; indexed text has at most
-- 191 characters, and an idempotency key is VARBINARY because text columns take no notice of spaces at the end.
-- Times are microseconds since 1970 in UTC; states are the numbers of millrace-common, where 10 and above are final.

-- The fence: one row. Whoever writes advances `seq` under its own term first.
CREATE TABLE leadership (
    id SMALLINT NOT NULL PRIMARY KEY,
    term BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    holder VARCHAR(191) NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
INSERT INTO leadership (id, term, seq, holder) VALUES (1, 0, 0, '');

-- The connections of leaders, so that the next one can end them. Which of them is still theirs, a named lock tells.
CREATE TABLE leader_connection (
    connection_id BIGINT NOT NULL PRIMARY KEY
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE workflow (
    name VARCHAR(191) NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    cursor_at BIGINT
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- `task_names` is a JSON array in the order of the definition: pages name tasks without reading the definition.
CREATE TABLE workflow_version (
    workflow VARCHAR(191) NOT NULL,
    version BIGINT NOT NULL,
    applied_at BIGINT NOT NULL,
    task_names MEDIUMTEXT NOT NULL,
    source MEDIUMTEXT NOT NULL,
    PRIMARY KEY (workflow, version)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Intervals that a schedule passed over, by its own rules; term, seq and position name the change that recorded them.
CREATE TABLE firing_skip (
    workflow VARCHAR(191) NOT NULL,
    term BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    position BIGINT NOT NULL,
    skipped BIGINT NOT NULL,
    is_exact SMALLINT NOT NULL,
    first_start BIGINT NOT NULL,
    first_end BIGINT NOT NULL,
    last_start BIGINT NOT NULL,
    last_end BIGINT NOT NULL,
    PRIMARY KEY (workflow, term, seq, position),
    KEY firing_skip_by_end (last_end)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- At most one run of a schedule for each interval (trigger_code 1 is the schedule). Ends tell intervals apart and starts
-- do not: after a change from hourly to daily, the day that is under way starts with an hour that was run already.
CREATE TABLE run (
    id BINARY(16) NOT NULL PRIMARY KEY,
    workflow VARCHAR(191) NOT NULL,
    version BIGINT NOT NULL,
    trigger_code SMALLINT NOT NULL,
    retry_of BINARY(16),
    interval_start BIGINT NOT NULL,
    interval_end BIGINT NOT NULL,
    params MEDIUMTEXT NOT NULL,
    idempotency_key VARBINARY(764),
    created_at BIGINT NOT NULL,
    state SMALLINT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT,
    reason MEDIUMTEXT,
    ending SMALLINT,
    ending_reason MEDIUMTEXT,
    scheduled_end BIGINT AS (CASE WHEN trigger_code = 1 THEN interval_end END) STORED,
    KEY run_by_workflow (workflow, id),
    KEY run_by_state (state, id),
    KEY run_by_workflow_and_state (workflow, state, id),
    UNIQUE KEY run_scheduled_once (workflow, scheduled_end),
    UNIQUE KEY run_by_idempotency_key (workflow, idempotency_key)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- An instance that is still waiting has no row.
CREATE TABLE task_instance (
    run_id BINARY(16) NOT NULL,
    instance_index BIGINT NOT NULL,
    state SMALLINT NOT NULL,
    moved_at BIGINT NOT NULL,
    started_at BIGINT,
    retry_at BIGINT,
    attempts BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    losses BIGINT NOT NULL,
    rejections BIGINT NOT NULL,
    output_values MEDIUMTEXT,
    PRIMARY KEY (run_id, instance_index)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- `started_at` and `ended_at` are by the executor's clock where it has told them, all other times by the leader's.
-- At most one live attempt of a task instance. The key begins with `is_live`, so that it finds all of them as well.
CREATE TABLE attempt (
    run_id BINARY(16) NOT NULL,
    instance_index BIGINT NOT NULL,
    attempt_number BIGINT NOT NULL,
    state SMALLINT NOT NULL,
    executor VARCHAR(191) NOT NULL,
    spool_id BINARY(16) NOT NULL,
    assigned_at BIGINT NOT NULL,
    assigned_term BIGINT NOT NULL,
    assigned_seq BIGINT NOT NULL,
    moved_at BIGINT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT,
    ended_term BIGINT,
    ended_seq BIGINT,
    exit_code BIGINT,
    reason MEDIUMTEXT,
    output_values MEDIUMTEXT,
    is_skipped SMALLINT,
    is_permanent SMALLINT,
    log_bytes BIGINT,
    proof SMALLINT,
    is_live SMALLINT AS (CASE WHEN state < 10 THEN 1 END) STORED,
    PRIMARY KEY (run_id, instance_index, attempt_number),
    UNIQUE KEY attempt_one_live (is_live, run_id, instance_index)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
