-- Live settings: the value in force of each name, and the one that was refused last, where there is one.
-- `revision` is the change of etcd that gave it; 0 where this database keeps the settings.
CREATE TABLE setting (
    name VARCHAR(191) NOT NULL PRIMARY KEY,
    value_text TEXT,
    value_by VARCHAR(191),
    value_at BIGINT,
    refused_text TEXT,
    refused_reason TEXT,
    refused_by VARCHAR(191),
    refused_at BIGINT,
    revision BIGINT NOT NULL
);

-- What was done to them, refused values too; term, seq and position name the change that recorded it.
CREATE TABLE setting_change (
    term BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    position BIGINT NOT NULL,
    name VARCHAR(191) NOT NULL,
    changed_at BIGINT NOT NULL,
    changed_by VARCHAR(191) NOT NULL,
    old_text TEXT,
    given_text TEXT,
    refused_reason TEXT,
    PRIMARY KEY (term, seq, position)
);
CREATE INDEX setting_change_by_name ON setting_change (name, term, seq, position);
CREATE INDEX setting_change_by_time ON setting_change (changed_at);
