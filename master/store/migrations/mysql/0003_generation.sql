-- Which election service numbers the terms, and how often it was replaced. One row.
CREATE TABLE coordination (
    id SMALLINT NOT NULL PRIMARY KEY,
    generation BIGINT NOT NULL,
    service VARCHAR(191) NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
INSERT INTO coordination (id, generation, service) VALUES (1, 0, '');
