-- When the last block of a sequence was taken (UTC, by this server's clock). A proxy uses a block for two seconds at most:
-- after that nobody holds numbers below `next_value`, and a row with such a number of its own can meet no generated one.
SET @column_missing = (SELECT COUNT(*) = 0 FROM information_schema.columns WHERE table_schema = '_shardproxy' AND table_name = 'sequence' AND column_name = 'taken_at');
SET @statement = IF(@column_missing, 'ALTER TABLE _shardproxy.sequence ADD COLUMN taken_at DATETIME(6) NULL', 'DO 0');
PREPARE add_column FROM @statement;
EXECUTE add_column;
DEALLOCATE PREPARE add_column;
