-- Who has led: a row for each claim, written by its transaction, and the last transaction of the term before it.
-- `claimed_at` is by the clock of the database.
CREATE TABLE claim (
    term BIGINT NOT NULL PRIMARY KEY,
    holder VARCHAR(191) NOT NULL,
    claimed_at BIGINT NOT NULL,
    after_term BIGINT NOT NULL,
    after_seq BIGINT NOT NULL
);
-- A term is followed by one claim.
CREATE UNIQUE INDEX claim_follows_one ON claim (after_term);
ALTER TABLE leadership ADD COLUMN before_term BIGINT NOT NULL DEFAULT 0;
ALTER TABLE leadership ADD COLUMN before_seq BIGINT NOT NULL DEFAULT 0;
-- Up to where intervals of its schedule may be gone, with the runs that they fired.
ALTER TABLE workflow ADD COLUMN pruned_to BIGINT;
