-- The machine on which the spool of an attempt was when it was assigned; NULL where the executor did not know it.
ALTER TABLE attempt ADD COLUMN machine_id VARCHAR(191);
