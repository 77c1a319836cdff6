-- Executors that are closed to starts until a person opens them; an executor without a row is open.
CREATE TABLE executor_standing (
    executor VARCHAR(191) NOT NULL PRIMARY KEY,
    closed SMALLINT NOT NULL,
    reason MEDIUMTEXT NOT NULL,
    closed_by VARCHAR(191) NOT NULL,
    closed_at BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
