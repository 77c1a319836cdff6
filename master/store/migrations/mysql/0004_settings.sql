-- Live settings: the value in force of each name, and the one that was refused last, where there is one.
-- `revision` is the change of etcd that gave it; 0 where this database keeps the settings.
CREATE TABLE setting (
    name VARCHAR(191) NOT NULL PRIMARY KEY,
    value_text MEDIUMTEXT,
    value_by VARCHAR(191),
    value_at BIGINT,
    refused_text MEDIUMTEXT,
    refused_reason MEDIUMTEXT,
    refused_by VARCHAR(191),
    refused_at BIGINT,
    revision BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What was done to them, refused values too; term, seq and position name the change that recorded it.
CREATE TABLE setting_change (
    term BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    position BIGINT NOT NULL,
    name VARCHAR(191) NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by VARCHAR(191) NOT NULL,
    old_text MEDIUMTEXT,
    given_text MEDIUMTEXT,
    refused_reason MEDIUMTEXT,
    PRIMARY KEY (term, seq, position),
    KEY setting_change_by_name (name, term, seq, position),
    KEY setting_change_by_time (changed_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
